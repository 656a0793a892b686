"""Parameterised layers: what holds a weight, names its axes and casts it.

Every weight carries logical axis names, which `parallel/` maps to mesh axes: `in_channels` and
`out_channels` for matrices and convolution kernels, `channels` for vectors. Activations are named
`batch`, `frames`, `rows`, `columns`, `features`. Weights are stored in `param_dtype` and used in
`dtype`; normalisation statistics are always float32.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stunet.nn.conv import conv, strided_temporal_conv
from stunet.nn.sharding import constrain, is_split

Initializer = Callable[..., Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
}

# What group norms call their statistics, for policies of rematerialisation: a few numbers that take
# a pass over the whole clip.
STATISTICS = "statistics"

CLIP_AXES = ("batch", "frames", "rows", "columns", "features")


def shard_clip(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    """States how a clip's activations lie on the mesh; does nothing where no mesh is set."""
    return constrain(x, *CLIP_AXES)


def _weight(
    module: nn.Module, name: str, init: Initializer, shape, axes, out_axis: str | None = "features"
) -> Array:
    """A parameter, cast for use; matrices are gathered from the shards they are stored in first.

    Without the gather the partitioner may move activations to the weights' shards instead, which
    are far larger. `out_axis` says how `out_channels` lie where the weight is used.
    """
    value = module.param(
        name, nn.with_logical_partitioning(init, axes), shape, module.param_dtype
    ).astype(module.dtype)
    used = tuple({"in_channels": None, "out_channels": out_axis}.get(a, a) for a in axes)
    return constrain(value, *used)


def _bias(module: nn.Module) -> Array:
    axes = nn.with_logical_partitioning(nn.initializers.zeros, ("channels",))
    return module.param("bias", axes, (module.features,), module.param_dtype)


@jax.custom_vjp
def add_bias(y: Float[Array, "... o"], bias: Float[Array, "o"]) -> Float[Array, "... o"]:
    """`y + bias` in the dtype of `y`. The bias's gradient, a sum over all positions of a clip, is
    taken in float32."""
    return y + bias.astype(y.dtype)


def _add_bias_bwd(_, dy):
    # The bias is a parameter: float32.
    return dy, dy.astype(jnp.float32).sum(range(dy.ndim - 1))


add_bias.defvjp(lambda y, bias: (add_bias(y, bias), None), _add_bias_bwd)


class Dense(nn.Module):
    """`[..., i] -> [..., o]`: an affine map of the last axis."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        shape = (x.shape[-1], self.features)
        kernel = _weight(self, "kernel", self.kernel_init, shape, ("in_channels", "out_channels"))
        y = x.astype(self.dtype) @ kernel
        return add_bias(y, _bias(self)) if self.use_bias else y


class Conv(nn.Module):
    """`[b, t, h, w, i] -> [b, t, h, w, o]`: stride 1, size kept by zero padding.

    `size` is (kt, kh, kw): `(1, 3, 3)` is a spatial, `(3, 1, 1)` a temporal convolution.
    """

    features: int
    size: tuple[int, int, int]
    time_stride: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w i"]) -> Float[Array, "b s h w o"]:
        shape = (*self.size, x.shape[-1], self.features)
        axes = (None, None, None, "in_channels", "out_channels")
        # XLA's partitioner gets a convolution wrong (a multiple of the result) whose clip is split
        # into two, and whose kernel's features are split and the clip's are not: split both or
        # neither.
        x = shard_clip(x.astype(self.dtype))
        out_axis = "features" if is_split("features", x.shape[-1]) else None
        kernel = _weight(self, "kernel", self.kernel_init, shape, axes, out_axis)
        if self.time_stride > 1:
            y = strided_temporal_conv(x, kernel, self.time_stride)
        elif self.size == (1, 1, 1):
            y = x @ kernel[0, 0, 0]
        else:
            y = conv(x, kernel)
        return add_bias(y, _bias(self))


def identity_temporal_kernel(key: Array, shape, dtype=jnp.float32) -> Array:
    """A (kt, 1, 1, c, c) kernel that returns its input: the centre tap is the identity matrix."""
    kernel = jnp.zeros(shape, dtype)
    return kernel.at[shape[0] // 2, 0, 0].set(jnp.eye(shape[3], shape[4], dtype=dtype))


class GroupNorm(nn.Module):
    """Group normalisation of each frame by itself (Wu & He, arXiv 1803.08494), optionally rescaled.

    Statistics go over the `spatial` axes (those between the leading `batch_axes` and the channels)
    and over each group of channels, in float32. Sums are taken per channel first and over the
    group's channels after, so that the channel axis, which fills a TPU's lanes, is never split.

    `scale_shift` `[b, 2c]`, if given, holds a scale s and a shift d: the result is `norm(x) * (1 +
    s) + d`.
    """

    groups: int
    epsilon: float = 1e-5
    batch_axes: int = 2
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *rest c"], scale_shift: Float[Array, "b d"] | None = None
    ) -> Float[Array, "b *rest c"]:
        channels = x.shape[-1]
        axes = nn.with_logical_partitioning
        scale = self.param(
            "scale", axes(nn.initializers.ones, ("channels",)), (channels,), self.param_dtype
        ).astype(jnp.float32)
        bias = self.param(
            "bias", axes(nn.initializers.zeros, ("channels",)), (channels,), self.param_dtype
        ).astype(jnp.float32)

        spatial = tuple(range(self.batch_axes, x.ndim - 1))
        values = x.astype(jnp.float32)
        mean, mean_square = (
            checkpoint_name(jnp.mean(v, spatial, keepdims=True), STATISTICS)
            for v in (values, jnp.square(values))
        )
        mean, mean_square = self._over_group(mean), self._over_group(mean_square)
        variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)

        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        offset = bias - mean * factor
        if scale_shift is not None:
            s, d = jnp.split(scale_shift.astype(jnp.float32), 2, axis=-1)
            s, d = (a.reshape(a.shape[0], *[1] * (x.ndim - 2), channels) for a in (s, d))
            factor, offset = factor * (1 + s), offset * (1 + s) + d
        # Their gradients are sums over a frame, which come with the convolution that gives dy. The
        # barrier keeps the compiler from summing dy a second time, over all frames, for the scale
        # and shift.
        factor, offset = jax.lax.optimization_barrier((factor, offset))
        return (values * factor + offset).astype(self.dtype)

    def _over_group(self, per_channel: Array) -> Array:
        grouped = per_channel.reshape(*per_channel.shape[:-1], self.groups, -1)
        mean = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
        return mean.reshape(per_channel.shape)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al., arXiv 1607.06450), in float32."""

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        # One group of all channels, with nothing to average over but the channels.
        norm = GroupNorm(1, self.epsilon, x.ndim - 1, self.dtype, self.param_dtype, name="norm")
        return norm(x)
