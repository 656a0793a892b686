"""Saves what test_mesh.py compares, from a process of its own with virtual devices.

`one_update.py OUT layers` saves the errors of layers that are split over devices, and
`one_update.py OUT MESH ...` saves the results of one update on each mesh.
"""

import json
import pathlib
import re
import sys

import flax.linen as nn
import jax
import numpy as np
from jax._src.cudnn import fused_attention_stablehlo as jax_cudnn

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "train"))
import test_step
import tiny
from from_config import abstract_state, create_state, jit_train_step, make_mesh

from stunet.diffusion import upscaling
from stunet.nn.attention import flash_attention, frame_attention
from stunet.nn.blocks import ResizeConv
from stunet.nn.conv import normalised_conv
from stunet.nn.layers import Conv, shard_clip
from stunet.nn.transformer import SpatialTransformer
from stunet.parallel import mesh as meshes
from stunet.plan import hlo

# Large enough for a mesh with `context` 4 to give each device a row or a frame at both levels.
SIZE = dict(frames=8, height=16, width=16)
# Queries, keys and values of two clips of 3 frames, with 4 heads of 8 features. Eight of the keys
# are the text's.
ATTENTION = ((2, 3, 16, 4, 8), (2, 3, 24, 4, 8), (2, 3, 24, 4, 8))


def one_update(first, asked: dict) -> dict[str, np.ndarray]:
    """Updates the state `first` once; `asked` has keys of `config.mesh`, optionally `dtype` too."""
    extents = {k: v for k, v in asked.items() if k != "dtype"}
    config = tiny.config(
        mesh=dict(data=1) | extents,
        model=dict(dtype=asked.get("dtype", "float32")),
        data=SIZE,
        train=dict(batch_size=8),
    )
    count = int(np.prod([extents.get(axis, 1) for axis in meshes.AXES]))
    mesh = make_mesh(config, jax.devices()[:count])
    with meshes.use(mesh, config.mesh.context_axis):
        # The state was made once, on one device. Compiling that for every mesh would take half of
        # the time.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
        state = jax.device_put(first, shardings)
        values = meshes.shard_batch(test_step.batch(config), mesh)
        compiled = jit_train_step(config, state).lower(state, values).compile()
        state, metrics = compiled(state, values)
    moments = state.opt_state[1][0]
    for tree in (state.ema, moments.mu, moments.nu):
        assert jax.tree.map(lambda x: x.sharding, tree) == jax.tree.map(
            lambda x: x.sharding, state.params
        )
    leaves = jax.tree.leaves(state.params)
    return jax.device_get(
        {
            "loss": metrics["loss"],
            **{f"count {k}": c.count for k, c in hlo.read(compiled.as_text()).collectives.items()},
            "sharded": sum(not leaf.sharding.is_fully_replicated for leaf in leaves),
            **_named("param", state.params),
            **_named("gradient", moments.mu),
        }
    )


def convolution_error() -> float:
    """Returns the error of a convolution whose clip is split in two and whose kernel by features.

    XLA returns a multiple of the right result unless the clip's features, here 3, are split too.
    """
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=2, tensor=2))
    network = Conv(features=8, kernel_size=(1, 3, 3))
    clip = jax.random.normal(jax.random.key(0), (4, 2, 8, 8, 3))
    params = nn.meta.unbox(network.init(jax.random.key(1), clip))
    expected = network.apply(params, clip)
    with meshes.use(mesh):
        split = jax.jit(lambda params, clip: network.apply(params, shard_clip(clip)))
        error = jax.device_get(split(params, clip)) - expected
    return float(abs(error).max() / abs(expected).max())


def exchange_errors() -> dict[str, float]:
    """Compares norm, activation and convolution on split rows with the same on one device.

    Returns the error of the result and of each gradient, relative to the largest value, and the
    number of exchanges between devices.
    """
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=4))
    rng = np.random.default_rng(0)
    shapes = (2, 8, 16, 8, 3), (2, 8, 1, 1, 3), (2, 8, 1, 1, 3), (1, 3, 3, 3, 5), (2, 8, 16, 8, 5)
    *arrays, dy = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    def convolve(x, *others):
        return shard_clip(normalised_conv(shard_clip(x), *others, jax.nn.silu))

    def results(dy, *arrays):
        y, vjp = jax.vjp(convolve, *arrays)
        return dict(zip(("y", "x", "factor", "offset", "kernel"), (y, *vjp(dy)), strict=True))

    expected = jax.jit(results)(dy, *arrays)
    # A function of its own, so that JAX traces it for the mesh.
    with meshes.use(mesh):
        forward = jax.jit(lambda *a: convolve(*a)).lower(*arrays).compile()
        got = jax.device_get(jax.jit(lambda *a: results(*a))(dy, *arrays))
    errors = {k: float(abs(got[k] - v).max() / abs(v).max()) for k, v in expected.items()}
    return errors | {k: c.count for k, c in hlo.read(forward.as_text()).collectives.items()}


def attention_error() -> float:
    """Returns the error of `flash_attention` on a mesh that splits clips, rows and heads."""
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=2, tensor=2))
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, s) for key, s in zip(keys, ATTENTION, strict=True)]
    lengths = np.array([24, 19], np.int32)
    with meshes.use(mesh):
        got = jax.jit(flash_attention)(*arrays, lengths)
    expected = frame_attention(*arrays, np.arange(24) < lengths[:, None])
    return float(abs(jax.device_get(got) - expected).max())


class Stable(nn.Module):
    """The blocks of Stable Diffusion's U-Nets that have no counterpart in DeepFloyd IF's."""

    @nn.compact
    def __call__(self, x, text, mask):
        x = shard_clip(x)
        y = ResizeConv(features=8, resample="down", name="down")(x)
        y = SpatialTransformer(depth=1, head_channels=4, groups=2, linear=True)(y, text, mask)
        return x + ResizeConv(features=8, resample="up", name="up")(y)


def stable_diffusion_errors(context_axis: str) -> dict[str, float]:
    """Compares blocks that are split over devices with the same on one device.

    Returns the error of the result and of each gradient, relative to the largest value.
    """
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=2, tensor=2))
    rng = np.random.default_rng(0)
    x, text = (rng.normal(size=s).astype(np.float32) for s in ((2, 4, 8, 8, 8), (2, 5, 6)))
    mask = np.arange(5) < np.array([[3], [0]])
    params = nn.meta.unbox(Stable().init(jax.random.key(0), x, text, mask))

    def results(params, x, text):
        y, vjp = jax.vjp(lambda *a: Stable().apply(*a, mask), params, x, text)
        return y, vjp(jax.numpy.sin(y))

    expected = _named("", jax.jit(results)(params, x, text))
    with meshes.use(mesh, context_axis):
        got = _named("", jax.device_get(jax.jit(lambda *a: results(*a))(params, x, text)))
    return {k: float(abs(got[k] - v).max() / abs(v).max()) for k, v in expected.items()}


def cudnn_shapes() -> list[str]:
    """Returns the shapes of query, key and value that one GPU's cuDNN gets on the same mesh."""
    jax_cudnn.check_cudnn_version = lambda: 91000  # As if JAX's CUDA plugin were installed.
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=2, tensor=2))
    arrays = [jax.ShapeDtypeStruct(s, jax.numpy.bfloat16) for s in ATTENTION]
    lengths = jax.ShapeDtypeStruct((2,), np.int32)
    with meshes.use(mesh):
        lowered = (
            jax.jit(lambda *a: flash_attention(*a))
            .trace(*arrays, lengths)
            .lower(lowering_platforms=("cuda",))
        )
    (call,) = re.findall(r"@__cudnn\$fmhaSoftmax\(.*", lowered.as_text())
    return re.findall(r"tensor<([\dx]+)xbf16>", call)[:3]


def upscaling_split() -> dict[str, float]:
    """Makes the input of super-resolution with split rows; returns its error and collectives."""
    mesh = meshes.make_mesh(meshes.Layout(data=2, context=4))
    clip = np.random.default_rng(0).normal(size=(2, 2, 32, 8, 3)).astype(np.float32)
    level = np.zeros(2, np.float32)

    def network_input(clip):
        low = upscaling.shrink(clip, 4)
        return shard_clip(upscaling.network_input(clip, shard_clip(low), level))

    expected = jax.jit(network_input)(clip)
    with meshes.use(mesh):
        compiled = jax.jit(lambda clip: network_input(shard_clip(clip))).lower(clip).compile()
        error = jax.device_get(compiled(clip)) - expected
    counts = {k: c.count for k, c in hlo.read(compiled.as_text()).collectives.items()}
    return {"error": float(abs(error).max())} | counts


def _named(kind, tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{kind}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


if __name__ == "__main__":
    out, *asked = sys.argv[1:]
    if asked == ["layers"]:
        np.savez(f"{out}/convolution.npz", error=convolution_error())
        np.savez(f"{out}/attention.npz", error=attention_error(), cudnn=cudnn_shapes())
        np.savez(f"{out}/exchange.npz", **exchange_errors())
        for axis in ("rows", "frames"):
            np.savez(f"{out}/stable_{axis}.npz", **stable_diffusion_errors(axis))
        np.savez(f"{out}/upscaling.npz", **upscaling_split())
    else:
        alone = meshes.make_mesh(meshes.Layout(data=1), jax.devices()[:1])
        first = jax.device_get(create_state(tiny.config(data=SIZE), alone))
        for i, mesh in enumerate(asked):
            np.savez(f"{out}/{i}.npz", **one_update(first, json.loads(mesh)))
