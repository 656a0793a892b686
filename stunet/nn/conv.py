"""Convolutions of clips, in an implementation that is fast on each platform.

Activations are `[b, t, h, w, c]` and kernels `[kt, kh, kw, c_in, c_out]`, with odd extents. Zero
padding keeps the size, of which a stride takes a part.

  - TPUs use XLA's convolution of arrays with 5 axes. A clip sharded over its frames or rows stays
    sharded.
  - GPUs, and a CPU without a mesh, use XLA's convolution of arrays with 4 axes, because XLA has
    better kernels for 4 axes on these platforms.
  - A CPU without a mesh computes the backward pass as matrix products over patches ("im2col"), a
    few thousand positions at a time, so that the patches stay in cache. If a frame has fewer
    positions than the kernel has taps, as 2x2 frames have, the forward pass is computed so too:
    XLA's convolution is ten times as slow there.

`benchmarks/conv_forms.py` measures how much faster these passes are on a machine.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stunet.nn.platforms import platform_dependent
from stunet.nn.sharding import is_split, partition_spec

# Bytes of patches that are gathered at once. About one core's cache; 1 to 3 MiB measured best.
_PATCH_BYTES = 3 << 19


@jax.custom_vjp
def conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "kt kh kw i o"]
) -> Float[Array, "b t h w o"]:
    """Correlates `x` with `kernel`, with stride 1 and zero padding that keeps the size."""
    return _forward(x, kernel)


def _forward(x, kernel):
    return _by_platform(_conv_cpu, _conv_rank_4, _conv_rank_5, x, kernel)


def _conv_fwd(x, kernel):
    return _forward(x, kernel), (x, kernel)


def _conv_bwd(residuals, dy):
    return _by_platform(
        _conv_bwd_cpu, _transpose(_conv_rank_4), _transpose(_conv_rank_5), *residuals, dy
    )


conv.defvjp(_conv_fwd, _conv_bwd)


def _transpose(forward: Callable) -> Callable:
    """Returns JAX's own backward pass of `forward`: (x, kernel, dy) -> (dx, dkernel)."""
    return lambda x, kernel, dy: jax.vjp(forward, x, kernel)[1](dy)


# XLA for TPUs makes no batch axis of fewer frames than this.
_TPU_BATCH = 8


def _by_platform(cpu: Callable, gpu: Callable, tpu: Callable, *arrays: Array):
    """Calls the function that suits the platform and the mesh.

    Args:
        cpu: function for CPUs without a mesh.
        gpu: function for GPUs; also for TPUs if the kernel is spatial and clips have few frames.
        tpu: function for TPUs; also for CPUs with a mesh, and for GPUs if the mesh splits frames.
        *arrays: arguments of the function: x and kernel, and in the backward pass also dy.
    """
    x, kernel, *_ = arrays
    # Frames that a mesh splits cannot be merged with clips, as rank 4 does. The form is chosen here
    # and not inside the functions, because JAX may reuse their traces on other meshes.
    if is_split("frames", x.shape[1]):
        gpu = tpu
    elif kernel.shape[0] == 1 and x.shape[1] < _TPU_BATCH:
        tpu = gpu
    # The CPU's backward pass scans over the batch axis. A mesh would shard that axis, so only a CPU
    # without a mesh takes this form.
    if jax.sharding.get_abstract_mesh().size > 1:
        cpu = tpu
    return platform_dependent(*arrays, cpu=cpu, cuda=gpu, rocm=gpu, default=tpu)


def _conv_rank_4(x, kernel, stride=1):
    """Convolves with two axes merged and none transposed, which suits CPUs and GPUs best.

    For a spatial kernel, the axes of clips and frames are merged. For a temporal kernel, the axes
    of rows and columns are merged. A kernel that extends over time and space is left to
    `_conv_rank_5`. A spatial kernel may move by `stride` rows and columns.
    """
    b, t, h, w, c = x.shape
    kt, kh, kw, _, c_out = kernel.shape
    if kt == 1:
        x, kernel = x.reshape(b * t, h, w, c), kernel[0]
    elif kh == kw == 1:
        x, kernel = x.reshape(b, t, h * w, c), kernel[:, 0]
    else:
        return _conv_rank_5(x, kernel)
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    dimensions = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    y = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)
    return y.reshape(b, t, -(-h // stride), -(-w // stride), c_out)


def _conv_rank_5(x, kernel, pad_rows=True, stride=1):
    """Convolves without merging axes, which suits TPUs best.

    XLA's batch axis is the axis of frames for a spatial kernel, and the axis of columns for a
    temporal kernel. The axis of clips is then one more axis to convolve over, along which the
    kernel has extent 1. If the axis of clips, which is short, were the batch axis, XLA for TPUs
    would copy columns into it. If axes were merged, XLA would not fuse norms and activations with
    the convolution.

    A spatial kernel may move by `stride` rows and columns.
    """
    kt, kh, kw = kernel.shape[:3]
    # `spatial` holds the axes of the clips that XLA convolves over, `kernel_axes` the axis of the
    # kernel for each of them.
    if kt == 1:
        batch, spatial, kernel_axes = 1, (0, 2, 3), (0, 1, 2)
    elif kh == kw == 1:
        batch, spatial, kernel_axes = 3, (0, 1, 2), (1, 0, 2)
    else:
        batch, spatial, kernel_axes = 0, (1, 2, 3), (0, 1, 2)
    layout = (batch, 4, *spatial)
    dimensions = lax.ConvDimensionNumbers(layout, (4, 3, *kernel_axes), layout)
    halves = [kernel.shape[axis] // 2 * (axis != 1 or pad_rows) for axis in kernel_axes]
    padding = [(half, half) for half in halves]
    strides = (1, stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)


def affine(
    x: Float[Array, "b *rest c"],
    factor: Float[Array, "b *ones c"],
    offset: Float[Array, "b *ones c"],
    dtype: DTypeLike,
) -> Float[Array, "b *rest c"]:
    """Returns `x * factor + offset`, computed in float32."""
    return (x.astype(jnp.float32) * factor + offset).astype(dtype)


def normalised_conv(
    x: Float[Array, "b t h w i"],
    factor: Float[Array, "b t 1 1 i"],
    offset: Float[Array, "b t 1 1 i"],
    kernel: Float[Array, "kt kh kw i o"],
    activation: Callable[[Array], Array],
) -> Float[Array, "b t h w o"]:
    """Returns `conv(activation(x * factor + offset), kernel)`.

    Where rows are split over TPUs, a spatial convolution needs its neighbours' first and last rows.
    XLA would exchange the rows of the convolution's input. To do that, it writes norm and
    activation to memory. Here the rows of `x` are exchanged instead. So norm and activation are
    computed where the convolution reads its input, as they are where rows are not split.
    """

    def plain(x, factor, offset, kernel):
        return conv(activation(affine(x, factor, offset, x.dtype)), kernel)

    def exchanged(x, factor, offset, kernel):
        mesh = jax.sharding.get_abstract_mesh()
        split = partition_spec(
            ("batch", "frames", "rows", "columns", "features"), x.shape, mesh.shape
        )
        rows = split[2]
        last = jax.sharding.NamedSharding(mesh, split).shard_shape(x.shape)[2] + 1

        def part(x, factor, offset, kernel):
            index, count = lax.axis_index(rows), lax.axis_size(rows)
            down = [(i, i + 1) for i in range(count - 1)]
            above = lax.ppermute(x[:, :, -1:], rows, down)
            below = lax.ppermute(x[:, :, :1], rows, [(j, i) for i, j in down])
            x = jnp.concatenate([above, x, below], axis=2)
            y = activation(affine(x, factor, offset, x.dtype))
            # The clip's padding is zero after norm and activation, and not before them.
            row = lax.broadcasted_iota(jnp.int32, (1, 1, last + 1, 1, 1), 2)
            outside = ((row == 0) & (index == 0)) | ((row == last) & (index == count - 1))
            return _conv_rank_5(jnp.where(outside, 0, y), kernel, pad_rows=False)

        each_clip, whole = PartitionSpec(split[0]), PartitionSpec()
        mapped = jax.shard_map(part, in_specs=(split, each_clip, each_clip, whole), out_specs=split)
        return mapped(x, factor, offset, kernel)

    arrays = x, factor, offset, kernel
    if (
        kernel.shape[:2] != (1, 3)
        or x.shape[1] < _TPU_BATCH
        or not is_split("rows", x.shape[2])
        or is_split("features", x.shape[4])
    ):
        return plain(*arrays)
    return platform_dependent(*arrays, cuda=plain, rocm=plain, default=exchanged)


def _patches(x, kernel_size: Sequence[int]):
    """Gathers the neighbourhood of each position: `[n, t, h, w, kt kh kw c]`."""
    _, t, h, w, _ = x.shape
    x = jnp.pad(x, [(0, 0), *((k // 2, k // 2) for k in kernel_size), (0, 0)])
    shifts = [
        x[:, i : i + t, j : j + h, k : k + w]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
        for k in range(kernel_size[2])
    ]
    return jnp.concatenate(shifts, axis=-1)


def _chunks(kernel_size: Sequence[int], patch_channels: int, *arrays):
    """Splits arrays of clips into groups whose patches fit the cache: `[groups, n, t, h, w, c]`.

    For a spatial kernel, each frame counts as a clip of one frame. A temporal kernel needs whole
    clips.
    """
    kt, kh, kw = kernel_size
    if kt == 1:
        arrays = [a.reshape(-1, 1, *a.shape[2:]) for a in arrays]
    n, t, h, w, _ = arrays[0].shape
    most = max(1, _PATCH_BYTES // (4 * t * h * w * kt * kh * kw * patch_channels))
    group = max(d for d in range(1, n + 1) if n % d == 0 and d <= most)
    return [a.reshape(n // group, group, *a.shape[1:]) for a in arrays]


def _conv_cpu(x, kernel):
    """Convolves by `_conv_rank_4`, or by patches if frames are so small that XLA is slow."""
    *kernel_size, c_in, c_out = kernel.shape
    if x.shape[2] * x.shape[3] >= math.prod(kernel_size[1:]):
        return _conv_rank_4(x, kernel)
    kernel = kernel.reshape(-1, c_out)
    groups = _chunks(kernel_size, c_in, x)[0]
    return lax.map(lambda x: _patches(x, kernel_size) @ kernel, groups).reshape(*x.shape[:4], c_out)


def _conv_bwd_cpu(x, kernel, dy):
    """Computes both gradients from the patches of `dy`, which are gathered once.

    The gradient of `x` is the product of the patches and the mirrored kernel. The gradient of the
    kernel is the product of `x` and the patches.
    """
    *kernel_size, c_in, c_out = kernel.shape
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4).reshape(-1, c_in)

    def step(dkernel, group):
        x, dy = group
        patches = _patches(dy, kernel_size)
        product = jnp.tensordot(
            x.reshape(-1, c_in),
            patches.reshape(-1, patches.shape[-1]),
            (0, 0),
            preferred_element_type=jnp.float32,
        )
        return dkernel + product, patches @ mirrored

    # The sum is in float32: a bfloat16 sum over many groups would stop growing.
    zeros = jnp.zeros((c_in, mirrored.shape[0]), jnp.float32)
    dkernel, dx = lax.scan(step, zeros, tuple(_chunks(kernel_size, c_out, x, dy)))
    dkernel = jnp.flip(dkernel.astype(kernel.dtype).reshape(c_in, *kernel_size, c_out), (1, 2, 3))
    return dx.reshape(x.shape), jnp.moveaxis(dkernel, 0, 3)


def strided_spatial_conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "1 kh kw i o"], stride: int
) -> Float[Array, "b t h2 w2 o"]:
    """Returns rows and columns 0, stride, ... of `conv(x, kernel)`, and computes no others."""
    rank_4, rank_5 = (functools.partial(f, stride=stride) for f in (_conv_rank_4, _conv_rank_5))
    return _by_platform(rank_4, rank_4, rank_5, x, kernel)


def strided_temporal_conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "kt 1 1 i o"], stride: int
) -> Float[Array, "b s h w o"]:
    """Returns frames 0, stride, 2 stride, ... of `conv(x, kernel)`, and computes no others."""
    half = kernel.shape[0] // 2
    t = x.shape[1]
    x = jnp.pad(x, [(0, 0), (half, half), (0, 0), (0, 0), (0, 0)])
    taps = [x[:, k : k + t : stride] for k in range(kernel.shape[0])]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def repeated_temporal_conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "kt 1 1 i o"], times: int
) -> Float[Array, "b s h w o"]:
    """Returns `conv` of the clip in which each frame is repeated `times` times."""

    def repeat(x, kernel):
        return conv(jnp.repeat(x, times, axis=1), kernel)

    def dilate(x, kernel):
        # A frame of the result reads each frame of `x` at most once: the kernel's values for
        # repeated frames are added up first. With zeros between the frames of `x`, one kernel does
        # that for all frames of the result. XLA for TPUs leaves the zeros out.
        taps = _taps_of_repeated(kernel.shape[0], times)
        kernel = jnp.stack([sum(kernel[i] for i in tap) for tap in taps.values()])
        layout = (3, 4, 0, 1, 2)
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1, 1),
            # The result has `times - 1` more frames than the clip with zeros between its frames.
            ((0, 0), (-min(taps), max(taps) + times - 1), (0, 0)),
            lhs_dilation=(1, times, 1),
            dimension_numbers=lax.ConvDimensionNumbers(layout, (4, 3, 1, 0, 2), layout),
        )

    if is_split("frames", x.shape[1]):
        return repeat(x, kernel)
    return platform_dependent(x, kernel, tpu=dilate, default=repeat)


def _taps_of_repeated(size: int, times: int) -> dict[int, list[int]]:
    """Returns which taps of a kernel read the same frame before it was repeated.

    Args:
        size: number of taps; odd.
        times: how often each frame is repeated.

    Returns:
        The indices of taps, by the place of the frame that they read: how many frames of the result
        it comes after the one that reads it. Every place from the first to the last is in the dict.
    """
    taps: dict[int, list[int]] = {}
    for repetition in range(times):
        for i in range(size):
            place = (repetition + i - size // 2) // times * times - repetition
            taps.setdefault(place, []).append(i)
    return dict(sorted(taps.items()))
