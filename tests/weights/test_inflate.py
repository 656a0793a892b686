"""`stunet inflate` makes a run of a text-to-image U-Net.

At first the run makes the U-Net's pictures. In training only its temporal layers learn. Its spatial
weights are exported as they were.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers
import tiny_unet
from from_config import (
    abstract_state,
    create_state,
    init_state,
    make_mesh,
    make_network,
    make_source,
    make_validation_step,
)
from safetensors.numpy import load_file, save_file
from test_diffusers_unet import abstract, jit, read

from stunet import cli, configs
from stunet.nn.parameters import is_temporal
from stunet.parallel import mesh as meshes
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints
from stunet.weights import diffusers_unet
from stunet.weights import inflate as inflating

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")

FRAMES = 4
# Not one group per channel: a group of one channel and one position has nothing to normalise.
UNET = tiny_unet.flags((8, 16), norm_num_groups=2)
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Trains on one clip again and again, always with its caption.
TRAINING = {
    "data.source": "moving_digits",
    "data.num_clips": 1,
    "train.batch_size": 4,
    "train.steps": 20,
    "train.learning_rate": 1e-2,
    "train.warmup_steps": 0,
    "diffusion.caption_dropout": 0.0,
    "log.every": 1,
    "log.validate_every": 0,
    "log.sample_every": 0,
}


@pytest.fixture(scope="module")
def t2i(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t2i")
    return directory, tiny_unet.save(directory, UNET)


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def inflate(directory, out, *more) -> int:
    small = "--config.text.max_length=8", "--config.model.temporal_attention_blocks=1"
    return run("inflate", "--t2i", directory, "--out", out, "--frames", FRAMES, *small, *more)


def checkpoint(workdir):
    """Reads (config, weights by path) from a run's newest checkpoint."""
    config = configs.read(workdir / "config.json")
    mesh = make_mesh(config)
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        return config, checkpoints.restore_ema_params(abstract_state(config, mesh))


@pytest.fixture(scope="module")
def inflated(t2i, tmp_path_factory):
    out = tmp_path_factory.mktemp("inflated") / "run"
    assert inflate(t2i[0], out, "--temporal-factors", "1,2") == 0
    return out


@pytest.fixture(scope="module")
def pictures(t2i):
    """Returns random clips, the second one static, and the U-Net's output for each frame."""
    config, params = read(t2i[0])
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(2, FRAMES, 8, 8, 3)).astype(np.float32)
    clips[1] = clips[1, :1]
    time, text = np.full(2, 0.6, np.float32), rng.normal(size=(2, 5, 16)).astype(np.float32)
    given = clips, time, text, np.arange(5) < np.array([[3], [5]])
    return given, jit(make_network(config).apply)({"params": params}, *given)


@pytest.mark.parametrize("factor", [2, 4])
def test_at_first_every_nth_frame_and_all_of_a_static_clip_are_the_u_nets(
    t2i, pictures, inflated, factor, tmp_path
):
    if factor != 2:
        inflated = tmp_path / "run"
        assert inflate(t2i[0], inflated, "--temporal-factors", f"1,{factor}") == 0
    config, params = checkpoint(inflated)
    assert config.model.temporal_factors == (1, factor)
    given, expected = pictures
    found = np.asarray(jit(make_network(config).apply)({"params": params}, *given))
    tolerance = dict(rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found[1], expected[1], **tolerance)
    np.testing.assert_allclose(found[0, ::factor], expected[0, ::factor], **tolerance)
    # The other frames differ, because time is resized.
    assert np.abs(found[0] - expected[0]).max(axis=(1, 2, 3))[1] > 1e-2


@pytest.fixture(scope="module")
def trained(inflated, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    changes = [f"--config.{key}={value}" for key, value in TRAINING.items()]
    first = "--config", inflated / "config.json", f"--config.train.init_from={inflated}"
    assert run("train", *first, "--workdir", workdir, *changes) == 0
    return workdir


def test_training_asks_for_data_until_some_is_named(t2i, inflated, tmp_path, capsys):
    """Nobody who inflates a U-Net wants it trained on moving digits."""
    data = configs.read(inflated / "config.json").data
    assert (data.source, data.path) == ("clips", "")
    train = "train", "--config", inflated / "config.json", "--workdir", tmp_path / "run"
    assert run(*train) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "data.path is empty; name the directory of the records" in sentence
    assert not (tmp_path / "run").exists()
    assert run(*train, f"--config.data.path={tmp_path / 'nowhere'}") == 1
    assert "nowhere" in capsys.readouterr().err
    for name, told in (("later", ()), ("now", ["--config.data.path=clips"])):
        assert inflate(t2i[0], tmp_path / name, *told) == 0
        assert ("no data is named yet" in capsys.readouterr().out) == (name == "later")
    assert configs.read(tmp_path / "now" / "config.json").data.path == "clips"


@pytest.mark.slow
def test_training_moves_the_temporal_weights_alone(inflated, trained):
    (_, before), (config, after) = map(checkpoint, (inflated, trained))
    assert config.freeze == "spatial"
    before, after = flatten_dict(before), flatten_dict(after)
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        same = np.array_equal(leaf, before[path])
        assert same != is_temporal(path), path
        assert leaf.dtype == before[path].dtype


@pytest.mark.slow
def test_training_lowers_the_loss(inflated, trained):
    """Compares the loss of one batch at the same noise, which differs from update to update."""
    config = configs.read(trained / "config.json")
    source = make_source(config, "train")
    examples = [source[i % len(source)] for i in range(config.train.batch_size)]
    batch = {k: np.stack([e[k] for e in examples]) for k in ("video", "text", "text_mask")}
    validate = jit(make_validation_step(config))
    before, after = (
        np.mean(list(validate(checkpoint(workdir)[1], batch).values()))
        for workdir in (inflated, trained)
    )
    assert after < 0.9 * before


@pytest.mark.slow
def test_nothing_is_kept_for_the_spatial_weights(trained):
    config = configs.read(trained / "config.json")
    state = abstract(config)
    for tree in (state.params, state.ema):
        assert all(is_temporal(path) for path in flatten_dict(tree))
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(state.opt_state) <= 2 * size(state.params) + 4
    whole = abstract(dataclasses.replace(config, freeze="none"))
    assert size(whole.opt_state) > 2 * size(state.frozen)


@pytest.mark.parametrize("of", ["inflated", "trained"])
def test_what_was_imported_is_exported_tensor_by_tensor(t2i, of, tmp_path, request, capsys):
    out = tmp_path / "unet"
    workdir = request.getfixturevalue(of)
    assert run("export", "--workdir", workdir, "--format", "diffusers-unet", "--out", out) == 0
    assert f"after {20 if of == 'trained' else 0} updates" in capsys.readouterr().out
    given, written = load_file(t2i[0] / WEIGHTS), load_file(out / WEIGHTS)
    assert given.keys() == written.keys()
    for name, value in given.items():
        assert written[name].dtype == value.dtype
        np.testing.assert_array_equal(written[name], value, err_msg=name)
    model, info = diffusers.UNet2DConditionModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert model.config["block_out_channels"] == list(UNET["block_out_channels"])


def test_half_precision_files_and_stacked_layers_come_back_too(tmp_path):
    """Uses a super-resolution network, whose first convolution is trained too."""
    flags = UNET | dict(layers_per_block=[1, 3], in_channels=6, class_embed_type="timestep")
    model = tiny_unet.make(flags).half()
    model.save_pretrained(tmp_path / "t2i", max_shard_size="50KB")
    model_flags = "--config.model.scan_layers=True", "--config.mesh.fsdp=1"
    assert inflate(tmp_path / "t2i", tmp_path / "run", *model_flags) == 0
    config, params = checkpoint(tmp_path / "run")
    assert config.upscale.factor == 4
    assert params["down_1_layers"]["resnet"]["conv1"]["kernel"].shape[0] == 2
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    arguments = "--workdir", tmp_path / "run", "--format", "diffusers-unet", "--out"
    assert run("export", *arguments, tmp_path / "unet") == 0
    written = load_file(tmp_path / "unet" / WEIGHTS)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(written[name], value.float().numpy(), err_msg=name)


def test_adapters_are_exported_as_part_of_the_kernels(inflated, tmp_path):
    whole, params = checkpoint(inflated)
    config = tiny.with_lora(dataclasses.replace(whole, freeze="none"), rank=2)
    mesh = make_mesh(config)
    with meshes.use(mesh), Checkpoints(tmp_path) as checkpoints:
        first = init_state(config, params)
        ema = jax.tree.map(jnp.ones_like, first.ema)
        checkpoints.save(first.replace(ema=ema), {"global_next_index": 0})
        checkpoints.wait()
    configs.write(config, tmp_path / "config.json")
    out = tmp_path / "unet"
    assert run("export", "--workdir", tmp_path, "--format", "diffusers-unet", "--out", out) == 0
    written = load_file(out / WEIGHTS)
    # Each element of A B is the sum of two ones.
    kernel = np.asarray(params["conv_out"]["kernel"])[0].transpose(3, 2, 0, 1)
    change = 2 * config.lora.alpha / config.lora.rank
    np.testing.assert_allclose(written["conv_out.weight"], kernel + change, rtol=1e-6)
    bias = params["conv_out"]["bias"]
    np.testing.assert_array_equal(written["conv_out.bias"], bias)


def change_config(**keys):
    def change(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))

    return change


def change_weights(change):
    def changed(directory):
        weights = load_file(directory / WEIGHTS)
        change(weights)
        save_file(weights, directory / WEIGHTS)

    return changed


def cut_off(directory):
    file = directory / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change_config(down_block_types=["DownBlock2D", "K"]), "a U-Net of another family;"),
        (lambda d: (d / WEIGHTS).unlink(), f"has neither {WEIGHTS} nor {WEIGHTS}.index.json"),
        (cut_off, f"{WEIGHTS} is damaged"),
        (
            change_weights(lambda w: w.update({"conv_in.bias": np.ones(3, np.float32)})),
            "'conv_in.bias' in DIR has the shape (3,) where its config.json says (8,)",
        ),
        (change_config(cross_attention_dim=64), "in DIR has the shape (16, 32) where its"),
        (shutil.rmtree, "config.json cannot be read"),
    ],
    ids=["another_family", "no_weights", "cut_off", "shape", "config", "nothing"],
)
def test_what_cannot_be_inflated_is_said_in_a_sentence(t2i, damage, sentence, tmp_path, capsys):
    shutil.copytree(t2i[0], tmp_path / "t2i")
    damage(tmp_path / "t2i")
    refused(tmp_path / "t2i", tmp_path / "run", capsys, sentence)


def test_a_shard_that_is_missing(t2i, tmp_path, capsys):
    t2i[1].save_pretrained(tmp_path / "t2i", max_shard_size="50KB")
    shards = sorted((tmp_path / "t2i").glob("*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    refused(tmp_path / "t2i", tmp_path / "run", capsys, f"{shards[1].name} is missing, which")


def refused(directory, out, capsys, sentence, *more):
    there = sorted(out.parent.iterdir())
    assert inflate(directory, out, *more) == 1
    said = capsys.readouterr().err
    assert sentence.replace("DIR", str(directory)) in said
    assert said.count("\n") == 1
    assert sorted(out.parent.iterdir()) == there


def test_what_was_there_stays(t2i, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    refused(t2i[0], tmp_path / "run", capsys, "exists already; remove it or choose another place")
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / "mine"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("masks.image=1.0", "'in_channels' 3, and the network that --config asks for 7;"),
        ("model.activation=silu", "'act_fn' 'gelu', and the network that --config asks for 'silu'"),
        ("model.patch_size=2", "model.patch_size is 2, and diffusers' UNet2DConditionModel has no"),
        (
            "freeze=none; lora.rank=2",
            "leave them to a run that begins with this one (train.init_from)",
        ),
        ("model.temporal_factors=(1, 3)", "data.frames is 4; it must be a multiple of 3"),
    ],
)
def test_another_network_than_the_u_nets(t2i, tmp_path, capsys, asked, sentence):
    keys = (f"--config.{key}" for key in asked.split("; "))
    refused(t2i[0], tmp_path / "run", capsys, sentence, *keys)


@pytest.mark.parametrize("kilobytes", [64, 256, 384])
def test_a_disk_that_is_full(t2i, small_disk, capsys, monkeypatch, kilobytes):
    """Holds whichever of many batches of weights fills the disk."""
    monkeypatch.setattr(inflating, "AT_ONCE", 4096)
    disk = small_disk(kilobytes)
    refused(t2i[0], disk / "run", capsys, "is full; no unfinished files are left: free some")


def test_drawn_and_written_in_parts_it_is_the_run_that_begins_with_the_u_net(
    t2i, tmp_path, monkeypatch
):
    """Also compares EMA weights and moments, which are not written in parts."""
    monkeypatch.setattr(inflating, "AT_ONCE", 2**16)
    monkeypatch.setattr(inflating, "DRAWN_AT_ONCE", 32)
    workdir = tmp_path / "run"
    assert inflate(t2i[0], workdir, "--config.freeze=none") == 0
    config = configs.read(workdir / "config.json")
    mesh = make_mesh(config)
    shapes = abstract_state(config, mesh)
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        state, *_ = checkpoints.restore(shapes)
        fresh = flatten_dict(create_state(config, mesh).ema_params)
    u_net = diffusers_unet.Directory(
        t2i[0], diffusers_unet.table(make_parts(config).denoiser, shapes)
    )
    given = {path: u_net.read(path) for path in fresh if not is_temporal(path)}
    expected = init_state(config, unflatten_dict(fresh | given))
    jax.tree.map(np.testing.assert_array_equal, state, expected)
