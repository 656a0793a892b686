"""Stride-1 convolutions of clips, and the form of them that is fast on each platform.

Axes: activations `[b, t, h, w, c]`, kernels `[kt, kh, kw, c_in, c_out]` of odd extents, zero
padding that keeps the size.

TPUs and GPUs get XLA's own convolution, in a form in which a clip sharded over its frames or rows
stays sharded. A lone CPU device gets what is faster there: forward, XLA's convolution of rank 4,
which it has a better kernel for; backward, matrix products over patches ("im2col"), a few thousand
positions at a time so that the patches stay in cache.
`benchmarks/conv_on_cpu.py` prints what that gains on a machine.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

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
    return _by_platform(_conv_cpu, _conv_xla, x, kernel)


def _conv_fwd(x, kernel):
    # Not `conv`: a remat policy sees the convolution here, and may store its result.
    return _forward(x, kernel), (x, kernel)


def _conv_bwd(saved, dy):
    return _by_platform(_conv_bwd_cpu, _conv_bwd_xla, *saved, dy)


conv.defvjp(_conv_fwd, _conv_bwd)


def _by_platform(cpu: Callable, default: Callable, *args):
    # Patches are gathered along the batch axis in turn, which a mesh shards: only a lone device
    # takes that form.
    if jax.sharding.get_abstract_mesh().size > 1:
        return default(*args)
    return lax.platform_dependent(*args, cpu=cpu, default=default)


def _conv_xla(x, kernel):
    """Reshaped so that the batch is large: XLA for TPUs makes one of columns, by copies, otherwise.

    A kernel of one frame has the frames of all clips for its batch, unless a mesh splits them; a
    temporal one has the positions of a frame, and takes clips for an axis that it does not extend
    over.
    """
    b, t, h, w, c = x.shape
    kt, kh, kw, _, c_out = kernel.shape
    padding = [(k // 2, k // 2) for k in kernel.shape[:3]]
    if kh == kw == 1:
        dimensions = lax.ConvDimensionNumbers((2, 3, 0, 1), (3, 2, 0, 1), (2, 3, 0, 1))
        x, kernel, padding = x.reshape(b, t, h * w, c), kernel[None, :, 0, 0], [(0, 0), padding[0]]
    elif kt == 1 and not is_split("frames", t):
        dimensions = ("NHWC", "HWIO", "NHWC")
        x, kernel, padding = x.reshape(b * t, h, w, c), kernel[0], padding[1:]
    else:
        dimensions = ("NDHWC", "DHWIO", "NDHWC")
    strides = (1,) * len(padding)
    y = lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)
    return y.reshape(b, t, h, w, c_out)


def _conv_bwd_xla(x, kernel, dy):
    return jax.vjp(_conv_xla, x, kernel)[1](dy)


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


def _conv_cpu(x, kernel):
    b, t, h, w, c = x.shape
    kt, kh, kw, _, c_out = kernel.shape
    if kt == 1:
        x, kernel = x.reshape(b * t, h, w, c), kernel[0]
    elif kh == kw == 1:
        x, kernel = x.reshape(b, t, h * w, c), kernel[:, 0]
    else:
        return _conv_xla(x, kernel)
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=dimensions)
    return y.reshape(b, t, h, w, c_out)


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
