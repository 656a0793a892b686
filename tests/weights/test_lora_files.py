"""LoRA files change an inflated network as diffusers' U-Net is changed by up times down.

What is expected is computed with diffusers' own U-Net, whose weights have the change added.
"""

import copy
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers
import tiny_unet
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from from_config import abstract_state, make_mesh, make_network
from safetensors.numpy import save_file
from test_diffusers_unet import SD1, SD2, SDXL, abstract, jit, read
from test_inflate import FRAMES, UNET, checkpoint, inflate, run

from stunet.errors import UserError
from stunet.nn.parameters import is_temporal
from stunet.train.parts import make_parts
from stunet.weights import diffusers_unet, lora_files, stability_names
from stunet.weights.lora import merge

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")

RANK, ALPHA = 2, 3.0
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
PROJECTIONS = (
    *(f"{ATTENTION}.attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    f"{ATTENTION}.attn2.to_k",
)
# Linear layers, and convolutions by 1x1 and 3x3.
LAYERS = (
    *PROJECTIONS,
    f"{ATTENTION}.ff.net.0.proj",
    f"{ATTENTION}.ff.net.2",
    "mid_block.attentions.0.proj_in",
    "up_blocks.0.resnets.1.time_emb_proj",
    "up_blocks.0.resnets.1.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "time_embedding.linear_1",
    "conv_in",
)
KOHYA = "lora_unet_mid_block_attentions_0_proj_in"


def factors(unet, layers=LAYERS, rank=RANK):
    """Returns random factors (up, down) for layers of a U-Net."""
    rng, state = np.random.default_rng(0), unet.state_dict()
    made = {}
    for layer in layers:
        out, *inputs = state[f"{layer}.weight"].shape
        down = rng.normal(size=(rank, *inputs)).astype(np.float32) / np.sqrt(np.prod(inputs))
        up = rng.normal(size=(out, rank, *(1 for _ in inputs[1:]))).astype(np.float32)
        made[layer] = up, down.astype(np.float32)
    return made


def named(made, prefix, name, down, up):
    """Returns the tensors of a file, from functions that name a layer and ends for the factors."""
    tensors = {}
    for layer, (first, second) in made.items():
        tensors[f"{prefix}{name(layer)}{up}"] = first
        tensors[f"{prefix}{name(layer)}{down}"] = second
    return tensors


def kohya_xl(made):
    with torch.device("meta"):
        names = stability_names.layers(diffusers.UNet2DConditionModel(**SDXL).state_dict())
    return kohya({names[layer]: pair for layer, pair in made.items()})


def kohya(made, alpha=ALPHA):
    flat = {layer.replace(".", "_"): pair for layer, pair in made.items()}
    tensors = named(flat, "lora_unet_", str, ".lora_down.weight", ".lora_up.weight")
    if alpha is None:
        return tensors
    return tensors | {f"lora_unet_{layer}.alpha": np.array(alpha, np.float32) for layer in flat}


def peft(made, prefix="unet."):
    return named(made, prefix, str, ".lora_A.weight", ".lora_B.weight")


def processors(made):
    """Names the layers as diffusers did while attention processors held them."""

    def name(layer):
        block, _, projection = layer.removesuffix(".0").rpartition(".")
        return f"{block}.processor.{projection}"

    return named(made, "unet.", name, "_lora.down.weight", "_lora.up.weight")


def settings(**keys):
    return {"lora_adapter_metadata": json.dumps(keys)}


# Name -> (tensors of factors, metadata, layers that it has names for, s for each layer).
FORMATS = {
    "kohya": (kohya, None, LAYERS, lambda _: ALPHA / RANK),
    "kohya_without_alpha": (lambda made: kohya(made, None), None, LAYERS, lambda _: 1),
    "peft": (peft, None, LAYERS, lambda _: 1),
    "peft_with_alphas": (
        peft,
        settings(**{"unet.lora_alpha": 4, "unet.alpha_pattern": {"conv_in": 1, "attn1.to_q": 6}}),
        LAYERS,
        lambda layer: {"conv_in": 0.5, PROJECTIONS[0]: 3}.get(layer, 2),
    ),
    "peft_stable_rank": (
        lambda made: peft(made, prefix=""),
        settings(lora_alpha=4, use_rslora=True, r=RANK),
        LAYERS,
        lambda _: 4 / np.sqrt(RANK),
    ),
    "diffusers_older": (
        lambda made: named(made, "unet.", str, ".lora.down.weight", ".lora.up.weight"),
        None,
        LAYERS,
        lambda _: 1,
    ),
    "diffusers_oldest": (processors, None, PROJECTIONS, lambda _: 1),
}


@pytest.fixture(scope="module")
def t2i(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t2i") / "unet"
    return directory, tiny_unet.save(directory, SD1)


@pytest.fixture(scope="module")
def inflated(t2i, tmp_path_factory):
    """Returns the run, its weights, the network's table of names and the compiled network."""
    out = tmp_path_factory.mktemp("inflated") / "run"
    assert inflate(t2i[0], out, "--temporal-factors", "1,2,2") == 0
    config, params = checkpoint(out)
    state = abstract_state(config, make_mesh(config))
    tensors = diffusers_unet.table(make_parts(config).denoiser, state)
    return out, params, tensors, jit(make_network(config).apply)


@pytest.fixture
def write(tmp_path):
    def written(tensors, metadata=None, name="style.safetensors"):
        contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        save_file(contiguous, tmp_path / name, metadata)
        return tmp_path / name

    return written


def changed(unet, made, scale):
    """Returns the weights of a U-Net with the change `scale(layer)` up down of each layer."""
    state = {name: value.clone() for name, value in unet.state_dict().items()}
    for layer, (up, down) in made.items():
        weight = state[f"{layer}.weight"]
        product = torch.from_numpy(up).flatten(1) @ torch.from_numpy(down).flatten(1)
        weight += scale(layer) * product.reshape(weight.shape)
    return state


@pytest.mark.parametrize("name", FORMATS)
def test_a_static_clip_gets_what_diffusers_gives_its_picture(t2i, inflated, write, name):
    form, metadata, layers, scale = FORMATS[name]
    made = factors(t2i[1], layers)
    _, params, tensors, apply = inflated
    lora = lora_files.read(write(form(made), metadata), tensors)
    assert len(lora.factors) == len(layers)
    rng = np.random.default_rng(1)
    picture = rng.normal(size=(1, 8, 8, SD1["in_channels"])).astype(np.float32)
    text, time = rng.normal(size=(1, 5, 16)).astype(np.float32), np.float32(0.6)
    clip = picture[:, None].repeat(FRAMES, axis=1)

    def output(params):
        return np.asarray(apply({"params": params}, clip, time[None], text, None))

    got, theirs = output(merge(params, lora, 0.8)), copy.deepcopy(t2i[1])
    theirs.load_state_dict(changed(t2i[1], made, lambda layer: 0.8 * scale(layer)))
    with torch.no_grad():
        x = torch.from_numpy(picture.transpose(0, 3, 1, 2))
        want = theirs(x, torch.tensor(time * 999), torch.from_numpy(text)).sample.numpy()
    want = want.transpose(0, 2, 3, 1)
    limit = 1e-4 * np.abs(want).max()
    for frame in range(FRAMES):
        np.testing.assert_allclose(got[:, frame], want, rtol=0, atol=limit)
    assert np.abs(got - output(params)).max() > 1000 * limit


@pytest.mark.parametrize(
    ("flags", "form"),
    [
        (SD2, kohya),
        (UNET | dict(layers_per_block=[1, 3]), kohya),
        (SDXL, kohya_xl),
        (SDXL, peft),
    ],
    ids=["sd2", "if", "sdxl_kohya", "sdxl_peft"],
)
def test_every_layer_of_each_family_is_changed_in_its_place(flags, form, write, tmp_path):
    """Compares weights alone. With `scan_layers`, several layers are one weight."""
    unet = tiny_unet.save(tmp_path, flags)
    layers = [name.removesuffix(".weight") for name, p in unet.named_parameters() if p.ndim > 1]
    layers = [layer for layer in layers if not layer.endswith("positional_embedding")]
    made, scale = factors(unet, layers[::2]), 2 if form is peft else 2 * ALPHA / RANK
    config, params = read(tmp_path, scan_layers=True)
    tensors = diffusers_unet.table(make_parts(config).denoiser, abstract(config))
    merged = merge(params, lora_files.read(write(form(made)), tensors), 2)
    want = changed(unet, made, lambda _: scale)
    for path, leaf in flatten_dict(merged).items():
        tensor = tensors[path]
        for name, layer in zip(tensor.names, leaf if tensor.stacked else [leaf], strict=True):
            found = tensor.to_theirs(np.asarray(layer))
            np.testing.assert_allclose(found, want[name].numpy(), rtol=0, atol=1e-5, err_msg=name)


def test_names_in_stability_s_code_are_those_that_diffusers_converts():
    unet = tiny_unet.STABLE_DIFFUSION["sdxl"]
    with torch.device("meta"):
        names = [*diffusers.UNet2DConditionModel(**unet).state_dict()]
    layers = stability_names.layers(names)
    parted = (name.rpartition(".") for name in names)
    ours = {f"{layer}.{kind}": f"{layers[layer]}.{kind}" for layer, _, kind in parted}
    theirs = {f"model.diffusion_model.{name}": name for name in ours.values()}
    converted = convert_ldm_unet_checkpoint(theirs, unet)
    assert converted == ours
    # As kohya writes them.
    place = "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0"
    assert layers[place] == "input_blocks.8.1.transformer_blocks.9.attn2.to_out.0"


def test_alpha_0_is_the_network_itself_and_temporal_weights_stay(t2i, inflated, write):
    _, params, tensors, _ = inflated
    lora = lora_files.read(write(kohya(factors(t2i[1]))), tensors)
    before = flatten_dict(params)
    for alpha in (0, 1.5):
        for path, leaf in flatten_dict(merge(params, lora, alpha)).items():
            if alpha == 0 or is_temporal(path) or not lora.changes(path):
                assert leaf is before[path], path
            else:
                assert np.abs(leaf - before[path]).max() > 0, path


def test_a_run_that_begins_with_the_lora_has_the_weights_of_the_style(
    t2i, inflated, write, tmp_path, capsys
):
    _, params, tensors, _ = inflated
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": np.ones((), np.float32)}
    file = write(kohya(factors(t2i[1])) | text)
    lora = "--lora", file, "--lora-scale", 0.7
    assert inflate(t2i[0], tmp_path / "run", "--temporal-factors", "1,2,2", *lora) == 0
    said = capsys.readouterr().out
    assert f"{file}: merged into {len(LAYERS)} weights of the U-Net, times 0.7" in said
    assert "the text encoder is left out, 1 of 40 tensors, such as 'lora_te_text" in said
    assert "the run's text encoder is 'bytes', and no CLIP" in said
    style = merge(params, lora_files.read(file, tensors), 0.7)
    jax.tree.map(np.testing.assert_array_equal, checkpoint(tmp_path / "run")[1], style)
    assert inflate(t2i[0], tmp_path / "other", "--lora-scale", 2) == 1
    assert "give --lora too" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_samples_with_the_lora_at_each_alpha(write, tmp_path, capsys):
    unet = tiny_unet.save(tmp_path / "if", UNET)
    workdir = tmp_path / "run"
    assert inflate(tmp_path / "if", workdir) == 0
    layers = "conv_in", "down_blocks.1.attentions.0.to_q"
    text = {"text_encoder.x.lora_A.weight": np.ones((1, 1), np.float32)}
    file = write(peft(factors(unet, layers)) | text)
    command = "sample", "style", "--workdir", workdir, "--style-lora", file, "--prompt", "a 3"
    command += "--steps", 1, "--guidance", 1, "--out", tmp_path / "out", "--arrays"
    assert run(*command, "--alpha", 0, "--alpha", 1.5) == 0
    assert "the text encoder is left out, 1 of 5 tensors" in capsys.readouterr().err
    (noted,) = (tmp_path / "out").glob("*.json")
    noted = json.loads(noted.read_text())
    assert (noted["style_lora"], noted["alphas"]) == (str(file), [0, 1.5])
    assert run("sample", "text", *command[2:4], *command[6:]) == 0
    (styled,) = (tmp_path / "out").glob("*style*.npz")
    plain = next(f for f in (tmp_path / "out").glob("*.npz") if f != styled)
    with np.load(styled) as styled, np.load(plain) as plain:
        np.testing.assert_array_equal(styled["clips"][:1], plain["clips"])
        assert (styled["clips"][1:] != plain["clips"]).any()


PAIR = {f"{KOHYA}.lora_down.weight": (2, 32, 1, 1), f"{KOHYA}.lora_up.weight": (32, 2, 1, 1)}


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"lora_unet_mid_block_x.alpha": ()}, "the layer of 'lora_unet_mid_block_x.alpha', which"),
        ({"unet.conv_norm_out.lora_A.weight": (1, 8)}, "the layer of 'unet.conv_norm_out.lora_A"),
        (PAIR | {f"{KOHYA}.lora_up.weight": (64, 2, 1, 1)}, r"shapes \(64, 2, 1, 1\) and .* shape"),
        (PAIR | {f"{KOHYA}.lora_down.weight": (2, 9, 1, 1)}, "the LoRA is for another U-Net"),
        (PAIR | {f"{KOHYA}.lora_down.weight": (0, 32, 1, 1)}, "the LoRA is for another U-Net"),
        (PAIR | {f"{KOHYA}.alpha": (2,)}, "one number is needed"),
        ({f"{KOHYA}.lora_up.weight": (32, 2)}, "without the other .* it lacks 'down'"),
        (PAIR | {f"{KOHYA}.hada_w1_a": (2,)}, f"is a LoHa .it has '{KOHYA}.hada_w1_a'"),
        (PAIR | {f"{KOHYA}.lokr_w1": (2,)}, "is a LoKr"),
        (PAIR | {f"{KOHYA}.dora_scale": (2,)}, "is a DoRA"),
        (
            {"base_model.model.conv_in.lora_A.weight": (1, 8)},
            "save the LoRA with save_lora_weights",
        ),
        (PAIR | {f"{KOHYA}.diff": (2,)}, "'.*.diff', which is neither a factor of a LoRA"),
        (
            PAIR | {"unet.mid_block.attentions.0.proj_in.lora_A.weight": (2, 32)},
            "for one layer",
        ),
        ({"text_encoder.x.lora_A.weight": (2, 16)}, "holds no layer of a U-Net"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(inflated, write, shapes, sentence):
    file = write({name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises(UserError, match=sentence) as refused:
        lora_files.read(file, inflated[2])
    assert str(file) in str(refused.value)


def test_settings_that_cannot_be_read_are_refused(inflated, write):
    tensors = {name: np.ones(shape, np.float32) for name, shape in PAIR.items()}
    for metadata, sentence in (
        ({"lora_adapter_metadata": "{"}, "lora_adapter_metadata of .* is not JSON"),
        (settings(lora_alpha="4"), "is damaged: expected .*float.* at 'lora_alpha'"),
        (settings(alpha_pattern={"down.*to_q": 4}), "alpha_pattern 'down.*to_q'; names of layers"),
    ):
        with pytest.raises(UserError, match=sentence):
            lora_files.read(write(tensors, metadata), inflated[2])


@pytest.mark.parametrize("name", ["style.pt", "style.bin", "style.ckpt"])
def test_pickled_files_are_refused_unread(name, tmp_path, inflated, capsys):
    (tmp_path / name).write_bytes(b"\x80")
    style = "--style-lora", tmp_path / name, "--alpha", 1, "--prompt", "a 3"
    assert run("sample", "style", "--workdir", inflated[0], *style) == 1
    assert f"{name} is no .safetensors file; pickled" in capsys.readouterr().err
