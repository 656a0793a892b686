"""Layers with weights. Each layer names the axes of its weights, and casts the weights for use.

Every weight carries logical axis names, which `parallel/` maps to mesh axes: `in_channels` and
`out_channels` for matrices and convolution kernels, `channels` for vectors. The axes of activations
are named `batch`, `frames`, `rows`, `columns`, `features`. Weights are stored in `param_dtype` and
used in `dtype`; normalisation statistics are always float32.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stunet.nn.conv import (
    affine,
    conv,
    normalised_conv,
    repeated_temporal_conv,
    strided_spatial_conv,
    strided_temporal_conv,
)
from stunet.nn.sharding import constrain, is_split

Initializer = Callable[..., Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
}

# The name of group norms' statistics in policies of rematerialisation (`nn/remat.py`). Statistics
# are few numbers, but computing them takes a pass over the whole clip.
STATISTICS = "statistics"
# The name, in those policies, of what matrices and convolutions give after the bias was added.
PROJECTION = "projection"

# Logical names of the axes of a clip's activations, `[b, t, h, w, c]`.
CLIP_AXES = ("batch", "frames", "rows", "columns", "features")


def shard_clip(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    """Constrains the sharding of a clip's activations; without a mesh, returns `x` as it is."""
    return constrain(x, *CLIP_AXES)


def _weight(
    module: nn.Module,
    name: str,
    init: Initializer,
    shape: Sequence[int],
    axes: Sequence[str | None],
    out_axis: str | None = "features",
) -> Array:
    """Returns a parameter in the dtype of the computation, gathered along its `in_channels`.

    Each chip stores only a shard of a matrix. Without the gather, the partitioner may move
    activations to the shards instead, and activations are far larger.

    Args:
        module: the module that owns the parameter.
        name: name of the parameter.
        init: initialiser of the parameter.
        shape: shape of the parameter.
        axes: logical name of each axis, which decides how the parameter is stored.
        out_axis: logical name that replaces `out_channels` when the parameter is used.
    """
    value = module.param(
        name, nn.with_logical_partitioning(init, axes), shape, module.param_dtype
    ).astype(module.dtype)
    used = tuple({"in_channels": None, "out_channels": out_axis}.get(a, a) for a in axes)
    return constrain(value, *used)


def _vector(module: nn.Module, name: str, init: Initializer, length: int) -> Array:
    """Returns a parameter of one value per channel, in `param_dtype`."""
    init = nn.with_logical_partitioning(init, ("channels",))
    return module.param(name, init, (length,), module.param_dtype)


@jax.custom_vjp
def add_bias(y: Float[Array, "... o"], bias: Float[Array, "o"]) -> Float[Array, "... o"]:
    """Returns `y + bias` in the dtype of `y`.

    The gradient of the bias is a sum over all positions of a clip, and is computed in float32.
    """
    return y + bias.astype(y.dtype)


def _add_bias_bwd(_, dy):
    # float32, which is the dtype of the bias: it is a parameter.
    return dy, dy.astype(jnp.float32).sum(range(dy.ndim - 1))


add_bias.defvjp(lambda y, bias: (add_bias(y, bias), None), _add_bias_bwd)


class Dense(nn.Module):
    """Affine map of the last axis.

    Attributes:
        features: channels of the output.
        use_bias: add a bias.
        kernel_init: initialiser of the matrix.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

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
        if self.use_bias:
            y = add_bias(y, _vector(self, "bias", nn.initializers.zeros, self.features))
        return checkpoint_name(y, PROJECTION)


class Conv(nn.Module):
    """Convolution of clips, with zero padding that keeps the size.

    Attributes:
        features: channels of the output.
        kernel_size: frames, rows and columns of the kernel, all odd. `(1, 3, 3)` is a spatial and
            `(3, 1, 1)` a temporal convolution.
        time_stride: only frames 0, time_stride, 2 time_stride, ... of the result are computed.
            Values above 1 need a temporal kernel.
        space_stride: only rows and columns 0, space_stride, ... of the result are computed. Values
            above 1 need a spatial kernel.
        time_repeat: how often each frame is repeated before the convolution. Values above 1 need a
            temporal kernel.
        kernel_init: initialiser of the kernel.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    features: int
    kernel_size: tuple[int, int, int]
    time_stride: int = 1
    space_stride: int = 1
    time_repeat: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w i"],
        factor: Float[Array, "b t 1 1 i"] | None = None,
        offset: Float[Array, "b t 1 1 i"] | None = None,
        activation: Callable[[Array], Array] | None = None,
    ) -> Float[Array, "b s h2 w2 o"]:
        """Convolves `x`, or `activation(x * factor + offset)` if `factor` is given.

        Args:
            x: activations.
            factor: what `GroupNorm.coefficients` returns. It needs a kernel of more than one
                position, and neither a stride nor `time_repeat`.
            offset: given together with `factor`.
            activation: given together with `factor`.
        """
        shape = (*self.kernel_size, x.shape[-1], self.features)
        axes = (None, None, None, "in_channels", "out_channels")
        # Where a clip is split in two, XLA's partitioner computes a multiple of the right result if
        # the kernel's features are split and the clip's are not. So split both or neither.
        x = shard_clip(x.astype(self.dtype))
        out_axis = "features" if is_split("features", x.shape[-1]) else None
        kernel = _weight(self, "kernel", self.kernel_init, shape, axes, out_axis)
        if self.time_stride > 1:
            y = strided_temporal_conv(x, kernel, self.time_stride)
        elif self.space_stride > 1:
            y = strided_spatial_conv(x, kernel, self.space_stride)
        elif self.time_repeat > 1:
            y = repeated_temporal_conv(x, kernel, self.time_repeat)
        elif self.kernel_size == (1, 1, 1):
            y = x @ kernel[0, 0, 0]
        elif factor is not None:
            y = normalised_conv(x, factor, offset, kernel, activation)
        else:
            y = conv(x, kernel)
        y = add_bias(y, _vector(self, "bias", nn.initializers.zeros, self.features))
        return checkpoint_name(y, PROJECTION)


def identity_temporal_kernel(
    key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Array:
    """Initialises a (kt, 1, 1, c, c) kernel so that the convolution returns its input.

    The centre tap is the identity matrix and the other taps are zero. `key` is not used.
    """
    kernel = jnp.zeros(shape, dtype)
    return kernel.at[shape[0] // 2, 0, 0].set(jnp.eye(shape[3], shape[4], dtype=dtype))


class GroupNorm(nn.Module):
    """Group normalisation of each frame by itself (Wu & He, arXiv 1803.08494).

    Mean and variance are computed in float32, over each group of channels and all axes between the
    leading `batch_axes` and the channels. Each channel is summed first, and then the channels of a
    group. So the channel axis, which fills a TPU's lanes, is never split.

    Attributes:
        groups: number of groups of equally many channels.
        epsilon: added to the variance.
        batch_axes: number of leading axes that are not averaged over; 2 for `[b, t, h, w, c]`,
            where each frame has its own statistics.
        dtype: dtype of the output.
        param_dtype: dtype of the parameters.
    """

    groups: int
    epsilon: float = 1e-5
    batch_axes: int = 2
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def __call__(
        self, x: Float[Array, "b *rest c"], scale_shift: Float[Array, "b d"] | None = None
    ) -> Float[Array, "b *rest c"]:
        """Normalises `x`, with a learned scale and bias of each channel.

        Args:
            x: activations.
            scale_shift: a scale and a shift for each channel of each clip, so d = 2 c. With them
                the result is `norm(x) * (1 + scale) + shift`.
        """
        return affine(x, *self.coefficients(x, scale_shift), self.dtype)

    @nn.compact
    def coefficients(
        self, x: Float[Array, "b *rest c"], scale_shift: Float[Array, "b d"] | None = None
    ) -> tuple[Float[Array, "b *ones c"], Float[Array, "b *ones c"]]:
        """Returns factor and offset: the normalised `x` is `x * factor + offset`, in float32."""
        channels = x.shape[-1]
        scale = _vector(self, "scale", nn.initializers.ones, channels).astype(jnp.float32)
        bias = _vector(self, "bias", nn.initializers.zeros, channels).astype(jnp.float32)

        spatial = tuple(range(self.batch_axes, x.ndim - 1))
        values = x.astype(jnp.float32)
        mean, mean_square = (
            checkpoint_name(jnp.mean(v, spatial, keepdims=True), STATISTICS)
            for v in (values, jnp.square(values))
        )
        mean, mean_square = self._group_mean(mean), self._group_mean(mean_square)
        variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)

        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        offset = bias - mean * factor
        if scale_shift is not None:
            s, d = jnp.split(scale_shift.astype(jnp.float32), 2, axis=-1)
            s, d = (a.reshape(a.shape[0], *[1] * (x.ndim - 2), channels) for a in (s, d))
            factor, offset = factor * (1 + s), offset * (1 + s) + d
        # The gradients of factor and offset are sums of dy over a frame, which the compiler fuses
        # with the convolution that computes dy. Without the barrier it would sum dy a second time,
        # over all frames, for the gradients of scale and shift.
        return jax.lax.optimization_barrier((factor, offset))

    def _group_mean(self, per_channel: Array) -> Array:
        """Replaces the value of each channel by the mean over its group."""
        grouped = per_channel.reshape(*per_channel.shape[:-1], self.groups, -1)
        mean = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
        return mean.reshape(per_channel.shape)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al., arXiv 1607.06450), in float32.

    Attributes:
        epsilon: added to the variance.
        dtype: dtype of the output.
        param_dtype: dtype of the parameters.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        # A group norm of one group, whose statistics go over the channels alone.
        norm = GroupNorm(
            groups=1,
            epsilon=self.epsilon,
            batch_axes=x.ndim - 1,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="norm",
        )
        return norm(x)
