"""A run that begins with another run's weights: the widened network equals the old one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny
from flax.traverse_util import flatten_dict
from from_config import create_state, first_state, make_mesh, make_network, train
from safetensors.numpy import load_file, save_file

from stunet import configs
from stunet.errors import UserError
from stunet.nn.parameters import is_temporal, stack_layers
from stunet.parallel import mesh as meshes
from stunet.train.parts import make_parts
from stunet.train.saved import initial, weights_file
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention

# One level that treats each frame separately, which compiles fast; patches of 2 x 2 pixels.
MODEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
BASE = tiny.config(model=MODEL)
MASKS = dict(text=0.5, image=0.5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Makes the work directory of a text-to-video run whose EMA weights differ from its weights."""
    workdir = tmp_path_factory.mktemp("base")
    configs.write(BASE, workdir / "config.json")
    state = test_step.random_state(BASE, make_mesh(BASE))
    state = dataclasses.replace(state, ema=jax.tree.map(lambda p: 2.0 * p, state.params))
    with Checkpoints(workdir, Retention(1)) as checkpoints:
        checkpoints.save(state, {"global_next_index": 0})
        checkpoints.wait()
    return workdir, state


def begun(workdir, **groups):
    config = tiny.config(**{"model": MODEL, "train": dict(init_from=str(workdir))} | groups)
    mesh = make_mesh(config)
    with meshes.use(mesh):
        initial.check(make_parts(config), mesh)
        return config, first_state(config, mesh)


def output(config, params, inputs):
    text = jnp.ones((2, 3, config.text.dim)), jnp.ones((2, 3), bool)
    network, times = make_network(config), jnp.array([0.2, 0.7])
    apply = jax.jit(lambda params: network.apply({"params": params}, inputs, times, *text))
    return apply(params)


def test_at_first_it_makes_the_same_of_the_noisy_clip_whatever_else_it_is_given(workdir):
    directory, state = workdir
    config, first = begun(directory, masks=MASKS)
    noisy, clips = jax.random.normal(jax.random.key(0), (2, 2, 4, 8, 8, 1))
    mask = (clips[..., :1] > 0).astype(jnp.float32)
    expected = output(BASE, state.ema, noisy)
    assert np.abs(expected).max() > 0.05
    network_input = make_parts(config).denoiser.conditioning.network_input
    for given in ((clips, mask), (0 * clips, 0 * mask)):
        found = output(config, first.params, network_input(noisy, *given))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, first.params, first.ema)
    assert first.step == 0
    assert first.params["conv_in"]["kernel"].shape[-2] == 4 * 3


def test_a_patch_keeps_its_pixels_apart():
    kernel = jnp.arange(1.0, 9.0).reshape(1, 1, 4, 2)  # 4 pixels of 1 channel, 2 features
    wide = initial.widen(kernel, 4, 3).reshape(4, 3, 2)
    np.testing.assert_array_equal(wide[:, 0], kernel[0, 0])
    assert not wide[:, 1:].any()


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (dict(train=dict(init_from="nowhere")), "train.init_from: nowhere holds no training run"),
        (dict(model=MODEL | dict(channels=16)), "model.channels is 8 there and 16 here"),
        (dict(diffusion=dict(prediction="x0")), "diffusion.prediction is 'v' there and 'x0' here"),
        (dict(model=MODEL | dict(time_scale=999.0)), "model.time_scale is 1000.0 there and 999.0"),
    ],
)
def test_weights_that_do_not_fit(workdir, groups, sentence):
    with pytest.raises(UserError, match=sentence):
        begun(workdir[0], **groups)


def test_a_network_that_is_given_something_else(workdir, tmp_path):
    configs.write(tiny.config(model=MODEL, upscale=dict(factor=2)), tmp_path / "config.json")
    (tmp_path / "checkpoints").symlink_to(workdir[0] / "checkpoints")
    with pytest.raises(UserError, match=r"conditioned otherwise \(upscale, and this one masks\)"):
        begun(tmp_path, masks=MASKS)


def test_nothing_is_written_where_the_weights_do_not_fit(tmp_path):

    config = tiny.config(model=MODEL, train=dict(init_from=str(tmp_path)))
    with pytest.raises(UserError, match="holds no training run"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def file(workdir):
    """Writes the run's weights as `stunet export --format safetensors` does."""
    directory, state = workdir
    file = directory / "params.safetensors"
    weights_file.write(file, weights_file.cast(state.ema, None), BASE, 7)
    return file


@pytest.mark.parametrize("groups", [{}, dict(masks=MASKS)])
def test_a_file_begins_a_run_as_its_workdir_does(workdir, file, groups):
    _, expected = begun(workdir[0], **groups)
    _, found = begun(file, **groups)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.abs(found.params["conv_in"]["kernel"]).max() > 0.1


def test_half_precision_is_read_as_what_it_is_rounded_to(workdir, file, tmp_path):
    half = tmp_path / "half.safetensors"
    weights_file.write(half, weights_file.cast(workdir[1].ema, "bfloat16"), BASE, 7)
    saved = file.stat().st_size - half.stat().st_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(workdir[1].ema))
    # The files also hold the names of arrays and of their types, as text.
    assert abs(saved - 2 * parameters) < 0.02 * saved
    _, first = begun(half)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), workdir[1].ema)
    jax.tree.map(np.testing.assert_array_equal, first.params, rounded)
    assert {leaf.dtype for leaf in jax.tree.leaves(first.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("groups", [{}, dict(masks=MASKS)])
def test_a_file_that_says_nothing_of_its_network(workdir, file, tmp_path, groups):
    save_file(load_file(file), tmp_path / "bare.safetensors")
    _, expected = begun(workdir[0], **groups)
    _, found = begun(tmp_path / "bare.safetensors", **groups)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_layers_are_scanned_or_not_as_the_new_run_wants(tmp_path):
    model = MODEL | dict(layers_per_level=3)
    config = tiny.config(model=model)
    ema = test_step.random_state(config, make_mesh(config)).ema
    weights_file.write(tmp_path / "a.safetensors", weights_file.cast(ema, None), config, 0)
    _, first = begun(tmp_path / "a.safetensors", model=model | dict(scan_layers=True))
    jax.tree.map(np.testing.assert_array_equal, first.params, stack_layers(ema))


def without(named):
    del named["norm_out.scale"]


def reshaped(named):
    named["conv_out.bias"] = named["conv_out.bias"][:-1]


def with_more(named):
    named["down_0_layer_9.resnet.conv1.bias"] = named["conv_out.bias"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without, r"a\.safetensors has no weight 'norm_out.scale', which the network needs"),
        (reshaped, r"'conv_out.bias' has the shape \(3,\) in .*, and \(4,\) in the network"),
        (with_more, r"has a weight 'down_0_layer_9.* which the network does not have"),
    ],
)
def test_a_file_of_other_weights(file, tmp_path, change, sentence):
    named = load_file(file)
    change(named)
    save_file(named, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=sentence):
        begun(tmp_path / "a.safetensors")


def test_a_file_of_another_network_says_which_keys_differ(file):
    with pytest.raises(UserError, match=r"model.channels is 8 there and 16 here"):
        begun(file, model=MODEL | dict(channels=16))


def test_a_file_that_is_cut_off_or_not_there_begins_nothing(file, tmp_path):

    cut = tmp_path / "cut.safetensors"
    for content in (file.read_bytes()[:-100], file.read_bytes()[:50], b"", None):
        cut.unlink() if content is None else cut.write_bytes(content)
        config = tiny.config(model=MODEL, train=dict(init_from=str(cut)))
        with pytest.raises(UserError, match=r"cut\.safetensors is missing, damaged or cut off"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_file_with_a_flipped_bit_begins_nothing(file, tmp_path):
    content = file.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    for bit in np.random.default_rng(0).integers(8 * data, 8 * len(content), 5).tolist():
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped.safetensors").write_bytes(broken)
        with pytest.raises(UserError, match=r"flipped\.safetensors is damaged: .* export it again"):
            begun(tmp_path / "flipped.safetensors")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Makes the work directory of a text-to-image run of two levels with random weights."""
    workdir = tmp_path_factory.mktemp("pictures")
    config = tiny.config(model=dict(temporal=False), data=dict(frames=1))
    configs.write(config, workdir / "config.json")
    state = test_step.random_state(config, make_mesh(config))
    with Checkpoints(workdir, Retention(1)) as checkpoints:
        checkpoints.save(state, {"global_next_index": 0})
        checkpoints.wait()
    return workdir, config, state


def inflated(workdir, **groups):
    config = tiny.config(train=dict(init_from=str(workdir)), **groups)
    config = dataclasses.replace(config, freeze="spatial")
    mesh = make_mesh(config)
    with meshes.use(mesh):
        initial.check(make_parts(config), mesh)
        return config, first_state(config, mesh)


def test_a_video_network_begins_with_pictures_weights_and_fresh_temporal_layers(pictures):
    workdir, config, state = pictures
    video, first = inflated(workdir)
    frozen = flatten_dict(first.frozen)
    assert frozen.keys() == flatten_dict(state.ema).keys()
    for path, leaf in flatten_dict(state.ema).items():
        np.testing.assert_array_equal(frozen[path], leaf)
    added = flatten_dict(first.params)
    assert added
    assert all(map(is_temporal, added))
    fresh = flatten_dict(create_state(video, make_mesh(video)).params)
    for path, leaf in added.items():
        np.testing.assert_array_equal(leaf, fresh[path])
    # A static clip: each frame is what the text-to-image network makes of it.
    picture = jax.random.normal(jax.random.key(0), (2, 1, 8, 8, 1))
    clip = jnp.repeat(picture, 4, axis=1)
    expected = output(config, state.ema, picture)
    found = output(video, first.network_params(first.params), clip)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, jnp.repeat(expected, 4, axis=1), atol=1e-4)


def test_inflation_and_masks_at_once(pictures):
    workdir, _, state = pictures
    _, first = inflated(workdir, masks=MASKS)
    kernel = first.params["conv_in"]["kernel"]
    assert kernel.shape[-2] == 3 * state.ema["conv_in"]["kernel"].shape[-2]


def test_weights_of_a_file_are_inflated_too(pictures, tmp_path):
    workdir, config, state = pictures
    file = tmp_path / "pictures.safetensors"
    weights_file.write(file, weights_file.cast(state.ema, None), config, 7)
    (_, expected), (_, found) = inflated(workdir), inflated(file)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_networks_pictures_say_which_keys_differ(pictures):
    with pytest.raises(UserError, match=r"model.channels is 8 there and 16 here; give") as raised:
        inflated(pictures[0], model=dict(channels=16))
    assert "temporal" not in str(raised.value)
