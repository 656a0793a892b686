"""The spatial network equals diffusers' `UNet2DConditionModel` of DeepFloyd IF."""

import functools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import diffusers
import tiny_unet
import torch
from from_config import abstract_state, make_network
from safetensors.numpy import load_file

from stunet import configs, tensorfiles
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.tensorfiles import Header, Writer
from stunet.train.parts import make_parts
from stunet.train.state import count_parameters
from stunet.weights import diffusers_unet
from stunet.weights.diffusers_config import to_stunet
from stunet.weights.diffusers_families import TIME_SCALE

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Three levels, one channel of pixels, and widths that are not multiples of the first.
ODD = tiny_unet.flags((12, 20, 28), in_channels=1, out_channels=2, attention_head_dim=4)
WIDE = tiny_unet.flags(
    (16, 32), layers_per_block=2, attention_head_dim=16, norm_num_groups=8, act_fn="silu"
)
UNPOOLED = tiny_unet.flags(
    (8, 8),
    out_channels=3,
    layers_per_block=3,
    addition_embed_type=None,
    flip_sin_to_cos=False,
    freq_shift=1,
    attention_head_dim=4,
)
# Stage II has other depths and no self-attention, and divides residuals. It activates the time
# embedding once for all blocks, and takes the noise level of the low-resolution picture.
STAGE_II = tiny_unet.flags(
    (8, 16),
    in_channels=6,
    layers_per_block=[1, 2],
    only_cross_attention=True,
    resnet_out_scale_factor=1 / 0.7071,
    mid_block_scale_factor=1 / 0.7071,
    resnet_skip_time_act=True,
    time_embedding_act_fn="gelu",
    time_embedding_dim=24,
    class_embed_type="timestep",
)


# Both have a coarsest level that does not attend.
SD1 = tiny_unet.small("sd15")
SD2 = tiny_unet.small("sd21", layers_per_block=[1, 3, 1], transformer_layers_per_block=[1, 2, 3])
SDXL = tiny_unet.small("sdxl")


def read(directory: pathlib.Path, **model):
    """Reads (config, parameters) of a U-Net, with keys of `configs.Model` changed."""
    config = to_stunet(json.loads((directory / "config.json").read_text()), "config.json")
    config = configs.override(config, [f"--config.model.{k}={v}" for k, v in model.items()])
    tensors = diffusers_unet.table(make_parts(config).denoiser, abstract(config))
    source = diffusers_unet.Directory(directory, tensors)
    return config, unflatten_dict({path: jnp.asarray(source.read(path)) for path in tensors})


def abstract(config):
    return abstract_state(config, meshes.make_mesh(meshes.Layout(), jax.devices()[:1]))


@pytest.mark.usefixtures("quickly_compiled_convolutions")
@pytest.mark.parametrize(
    ("flags", "model", "frames"),
    [
        (ODD, {}, 1),
        (WIDE, {}, 3),
        (UNPOOLED, dict(scan_layers=True), 2),
        (STAGE_II, {}, 1),
        (SD1, {}, 2),
        (SD2, dict(scan_layers=True), 1),
        (SDXL, {}, 1),
    ],
    ids=[
        "odd_widths_three_levels",
        "wide_silu",
        "no_pooled_text_scanned",
        "stage_II",
        "sd1",
        "sd2",
        "sdxl",
    ],
)
def test_outputs_agree_with_diffusers(flags, model, frames, tmp_path):
    theirs = tiny_unet.save(tmp_path, flags)
    config, params = read(tmp_path, **model)

    rng = np.random.default_rng(0)
    b, length, upscales = 2, 5, flags["in_channels"] == 6
    of = flags.get("encoder_hid_dim") or flags["cross_attention_dim"]
    x = rng.normal(size=(b, frames, 8, 8, flags["in_channels"])).astype(np.float32)
    time, level = np.array([[0.003, 0.87], [0.25, 0.6]], np.float32)
    text = rng.normal(size=(b, length, of)).astype(np.float32)
    # With attention to the text alone, diffusers pads the mask for keys that do not exist.
    masked = not flags.get("only_cross_attention")
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool) if masked else None
    apply = jit(make_network(config).apply)
    got = apply({"params": params}, x, time, text, mask, *([level] if upscales else []))

    def each(a):  # Each frame is an image of its own, with the time and text of its clip.
        return torch.from_numpy(a.repeat(frames, axis=0))

    added = None
    if flags.get("addition_embed_type") == "text_time":
        # A picture of 8x8 latents is one of 64x64 pixels.
        sizes = np.tile(np.float32([64, 64, 0, 0, 64, 64]), (b, 1))
        added = dict(text_embeds=each(text[:, 0, :24]), time_ids=each(sizes))
        text, mask = text[:, 1:], mask[:, 1:]

    with torch.no_grad():
        want = theirs(
            torch.from_numpy(x.reshape(b * frames, 8, 8, -1).transpose(0, 3, 1, 2)),
            each(time * np.float32(TIME_SCALE)),
            each(text),
            class_labels=each(level * np.float32(TIME_SCALE)) if upscales else None,
            encoder_attention_mask=each(mask) if masked else None,
            added_cond_kwargs=added,
        ).sample.numpy()
    want = want.transpose(0, 2, 3, 1).reshape(got.shape)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


# Parameters of the published U-Nets of Stable Diffusion, as their model cards round them.
SIZES = {name: count for name, (_, count) in tiny_unet.IF.items()} | {
    "sd15": 860e6,
    "sd21": 866e6,
    "sdxl": 2.567e9,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_full_size_u_net_has_a_place_for_every_tensor(name):
    """Compares shapes alone, without values in either framework."""
    flags = tiny_unet.STABLE_DIFFUSION.get(name) or tiny_unet.full_size(name)
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**flags).state_dict()
    config = to_stunet(json.loads(json.dumps(flags)), name)
    # Scanned layers are traced in a third of the time, and several tensors then share a weight.
    config = configs.override(config, ["--config.model.scan_layers=True"])
    state = abstract(config)
    tensors = diffusers_unet.table(make_parts(config).denoiser, state)
    found = {name: Header("F32", tuple(t.shape)) for name, t in theirs.items()}
    tensorfiles.check(diffusers_unet.headers(tensors), found, name)
    count = sum(math.prod(t.shape) for t in theirs.values())
    assert count == count_parameters(state.params)
    assert count == pytest.approx(SIZES[name], rel=0 if name == "XL" else 2e-3)


@pytest.mark.parametrize("shards", [{}, dict(max_shard_size="20KB")], ids=["one_file", "shards"])
def test_a_part_of_a_weight_is_that_part(shards, tmp_path):
    tiny_unet.save(tmp_path, UNPOOLED, **shards)
    config = to_stunet(json.loads((tmp_path / "config.json").read_text()), "config.json")
    config = configs.override(config, ["--config.model.scan_layers=True"])
    tensors = diffusers_unet.table(make_parts(config).denoiser, abstract(config))
    source = diffusers_unet.Directory(tmp_path, tensors)
    stacked = ("down_1_layers", "attention", "to_q", "kernel")
    part = slice(0, 1), slice(3, 7), slice(2, 4)
    np.testing.assert_array_equal(source.read(stacked, part), source.read(stacked)[part])
    part = slice(0, 1), slice(None), slice(1, 3), slice(0, 2), slice(4, 8)
    np.testing.assert_array_equal(
        source.read(("conv_in", "kernel"), part), source.read(("conv_in", "kernel"))[part]
    )
    half = source.read(("conv_in", "kernel"), dtype=jnp.bfloat16)
    np.testing.assert_array_equal(half, source.read(("conv_in", "kernel")).astype(jnp.bfloat16))


def test_ours_and_theirs_are_inverse_and_every_name_is_taken_once():
    config = to_stunet(json.loads(json.dumps(STAGE_II)), "config.json")
    state = abstract(config)
    tensors = diffusers_unet.table(make_parts(config).denoiser, state)
    names = [name for tensor in tensors.values() for name in tensor.names]
    assert len(names) == len(set(names))
    shapes = jax.tree.map(lambda leaf: leaf.shape, state.params)
    for path, tensor in tensors.items():
        theirs = np.random.default_rng(0).normal(size=tensor.shape)
        ours = tensor.to_ours(theirs)
        assert ours.shape == functools.reduce(lambda tree, key: tree[key], path, shapes)
        np.testing.assert_array_equal(tensor.to_theirs(ours), theirs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda h: h.pop("conv_out.bias"), r"no weight 'conv_out.bias' of shape \(6,\), which its"),
        (lambda h: h.update({"x.y": Header("F32", (2,))}), r"weight 'x.y' of shape \(2,\), which"),
        (
            lambda h: h.update({"conv_out.bias": Header("F32", (3,))}),
            r"'conv_out.bias' in DIR has the shape \(3,\) where its config.json says \(6,\)",
        ),
        (
            lambda h: h.update({"conv_out.bias": Header("I8", (6,))}),
            "'conv_out.bias' in DIR is of the type I8; weights of the types F64, F32, F16, BF16",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, sentence):
    config = to_stunet(json.loads(json.dumps(WIDE)), "config.json")
    tensors = diffusers_unet.table(make_parts(config).denoiser, abstract(config))
    expected, found = (diffusers_unet.headers(tensors) for _ in range(2))
    tensorfiles.check(expected, found, "DIR")
    change(found)
    with pytest.raises(UserError, match=sentence):
        tensorfiles.check(expected, found, "DIR")


def test_tensors_written_one_by_one_are_read_by_safetensors(tmp_path):
    tensors = {
        "scalar": np.float32(3).reshape(()),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "half": np.ones((3,), jnp.bfloat16),
        "none": np.zeros((0, 2), np.float32),
    }
    kinds = {k: "BF16" if k == "half" else "F32" for k in tensors}
    file = tmp_path / "x.safetensors"
    with Writer(file, {k: Header(kinds[k], v.shape) for k, v in tensors.items()}) as writer:
        for name, value in tensors.items():
            writer.add(name, value)
    found = load_file(file)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
    with (
        pytest.raises(ValueError, match=re.escape("b of (1,) is not a of (1,)")),
        Writer(file, {"a": Header("F32", (1,))}) as writer,
    ):
        writer.add("b", np.ones(1))
