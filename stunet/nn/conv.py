"""Stride-1 convolutions of clips, and the form of them that is fast on each platform.

Axes: activations `[b, t, h, w, c]`, kernels `[kt, kh, kw, c_in, c_out]` of odd extents, zero
padding that keeps the size.

TPUs get XLA's convolution of rank 5, in which a clip sharded over its frames or rows stays sharded,
GPUs and a lone CPU that of rank 4, which they have better kernels for. A lone CPU's backward pass
is matrix products over patches ("im2col"), a few thousand positions at a time so that the patches
stay in cache.
`benchmarks/conv_on_cpu.py` prints what that gains on a machine.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from stunet.nn.platforms import platform_dependent
from stunet.nn.sharding import is_split

# Bytes of patches gathered at once: about a core's cache, measured best between 1 and 3 MiB.
_PATCH_BYTES = 3 << 19


@jax.custom_vjp
def conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "kt kh kw i o"]
) -> Float[Array, "b t h w o"]:
    """Correlates `x` with `kernel`: stride 1, zero padding of half the kernel on each side."""
    return _forward(x, kernel)


def _forward(x, kernel):
    return _by_platform(_conv_planes, _conv_planes, _conv_tpu, x, kernel)


def _conv_fwd(x, kernel):
    # Not `conv`: a remat policy sees the convolution here, and may store its result.
    return _forward(x, kernel), (x, kernel)


def _conv_bwd(saved, dy):
    return _by_platform(_conv_bwd_cpu, _bwd(_conv_planes), _bwd(_conv_tpu), *saved, dy)


conv.defvjp(_conv_fwd, _conv_bwd)


def _bwd(forward: Callable) -> Callable:
    return lambda x, kernel, dy: jax.vjp(forward, x, kernel)[1](dy)


# Of fewer frames than this XLA for TPUs makes no batch.
_TPU_BATCH = 8


def _by_platform(cpu: Callable, gpu: Callable, tpu: Callable, x, kernel, *dy):
    # Frames that a mesh splits cannot be merged with clips. This is decided here since what JAX
    # traces below it may keep for other meshes.
    if is_split("frames", x.shape[1]):
        gpu = tpu
    elif kernel.shape[0] == 1 and x.shape[1] < _TPU_BATCH:
        tpu = gpu
    # Patches are gathered along the batch axis in turn, which a mesh shards: only a lone CPU takes
    # that form.
    if jax.sharding.get_abstract_mesh().size > 1:
        cpu = tpu
    return platform_dependent(x, kernel, *dy, cpu=cpu, cuda=gpu, rocm=gpu, default=tpu)


def _conv_planes(x, kernel):
    """Of rank 4, without a transposition, which CPUs and GPUs have their best kernels for."""
    b, t, h, w, c = x.shape
    kt, kh, kw, _, c_out = kernel.shape
    if kt == 1:
        x, kernel = x.reshape(b * t, h, w, c), kernel[0]
    elif kh == kw == 1:
        x, kernel = x.reshape(b, t, h * w, c), kernel[:, 0]
    else:
        return _conv_tpu(x, kernel)
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=dimensions)
    return y.reshape(b, t, h, w, c_out)


def _conv_tpu(x, kernel):
    """Takes for its batch an axis that the kernel does not extend over and that is long: frames, or
    of a temporal kernel columns. Clips are then one more axis that it does not extend over.

    XLA for TPUs makes a batch of columns, by copies, where clips are the batch and few. And where
    axes are merged it computes norms and activations by themselves, not within a convolution.
    """
    kt, kh, kw = kernel.shape[:3]
    # The axes that are convolved, and for each the kernel's: one of extent 1 for clips.
    if kt == 1:
        batch, axes, kernel_axes = 1, (0, 2, 3), (0, 1, 2)
    elif kh == kw == 1:
        batch, axes, kernel_axes = 3, (0, 1, 2), (1, 0, 2)
    else:
        batch, axes, kernel_axes = 0, (1, 2, 3), (0, 1, 2)
    lies = (batch, 4, *axes)
    dimensions = lax.ConvDimensionNumbers(lies, (4, 3, *kernel_axes), lies)
    padding = [(kernel.shape[axis] // 2,) * 2 for axis in kernel_axes]
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=dimensions)


def _patches(x, size):
    """`[n, t, h, w, c] -> [n, t, h, w, kt kh kw c]`: each position's neighbourhood."""
    _, t, h, w, _ = x.shape
    x = jnp.pad(x, [(0, 0), *((k // 2, k // 2) for k in size), (0, 0)])
    shifts = [
        x[:, i : i + t, j : j + h, k : k + w]
        for i in range(size[0])
        for j in range(size[1])
        for k in range(size[2])
    ]
    return jnp.concatenate(shifts, axis=-1)


def _chunks(size, patch_channels: int, *arrays):
    """Splits clips into groups whose patches fit the cache: arrays to `[groups, n, t, h, w, c]`.

    A kernel of one frame may take the frames of all clips apart; a temporal one takes whole clips.
    """
    if size[0] == 1:
        arrays = [a.reshape(-1, 1, *a.shape[2:]) for a in arrays]
    n, t, h, w, _ = arrays[0].shape
    most = max(1, _PATCH_BYTES // (4 * t * h * w * size[0] * size[1] * size[2] * patch_channels))
    group = max(d for d in range(1, n + 1) if n % d == 0 and d <= most)
    return [a.reshape(n // group, group, *a.shape[1:]) for a in arrays]


def _conv_bwd_cpu(x, kernel, dy):
    """Both gradients from the same patches of `dy`: times the mirrored kernel, and times `x`."""
    *size, c_in, c_out = kernel.shape
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4).reshape(-1, c_in)

    def step(dkernel, group):
        x, dy = group
        patches = _patches(dy, size)
        product = jnp.tensordot(
            x.reshape(-1, c_in),
            patches.reshape(-1, patches.shape[-1]),
            (0, 0),
            preferred_element_type=jnp.float32,
        )
        return dkernel + product, patches @ mirrored

    # In float32: a bfloat16 sum over many groups would stop growing.
    zeros = jnp.zeros((c_in, mirrored.shape[0]), jnp.float32)
    dkernel, dx = lax.scan(step, zeros, tuple(_chunks(size, c_out, x, dy)))
    dkernel = jnp.flip(dkernel.astype(kernel.dtype).reshape(c_in, *size, c_out), (1, 2, 3))
    return dx.reshape(x.shape), jnp.moveaxis(dkernel, 0, 3)


def strided_temporal_conv(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "kt 1 1 i o"], stride: int
) -> Float[Array, "b s h w o"]:
    """The frames 0, stride, 2 stride, ... of `conv(x, kernel)`, without computing the others."""
    half = kernel.shape[0] // 2
    t = x.shape[1]
    x = jnp.pad(x, [(0, 0), (half, half), (0, 0), (0, 0), (0, 0)])
    taps = [x[:, k : k + t : stride] for k in range(kernel.shape[0])]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
