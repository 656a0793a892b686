"""Convolutional blocks: residual and resizing blocks of U-Nets, and Lumiere's temporal blocks."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stunet.nn.layers import (
    ACTIVATIONS,
    Conv,
    Dense,
    GroupNorm,
    identity_temporal_kernel,
    shard_clip,
)
from stunet.nn.resizing import downsample_space, upsample_space

# Kernel sizes: frames, rows, columns.
SPATIAL, TEMPORAL, POINTWISE = (1, 3, 3), (3, 1, 1), (1, 1, 1)

RESAMPLE = {"none": lambda x: x, "down": downsample_space, "up": upsample_space}


class ResnetBlock(nn.Module):
    """Residual block of two spatial convolutions, modulated by the conditioning vector.

    The conditioning vector acts between the convolutions. There it gives the scale and shift of the
    second group norm, as in DeepFloyd IF, or is added before that norm, as in Stable Diffusion.
    Blocks of autoencoders have none.

    Attributes:
        features: channels of the output.
        groups: number of groups in each group norm.
        activation: a key of `layers.ACTIVATIONS`.
        modulation: "scale_shift", or "added".
        resample: "down" halves and "up" doubles the rows and columns. Both the input of the first
            convolution and the block's input on the skip path are resized. "none" resizes neither.
        residual_divisor: the sum of the skip path and the convolutions is divided by this.
        epsilon: added to the variance in each group norm.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    features: int
    groups: int
    activation: str
    modulation: str = "scale_shift"
    resample: str = "none"
    residual_divisor: float = 1.0
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], condition: Float[Array, "b d"] | None = None
    ) -> Float[Array, "b t h2 w2 f"]:
        """Returns the block's output. Without `condition`, nothing else enters the block."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def norm(name):
            return GroupNorm(groups=self.groups, epsilon=self.epsilon, name=name, **dtypes)

        def conv(kernel_size, name):
            return Conv(features=self.features, kernel_size=kernel_size, name=name, **dtypes)

        act, resample = ACTIVATIONS[self.activation], RESAMPLE[self.resample]
        norm1, conv1 = norm("norm1"), conv(SPATIAL, "conv1")
        if self.resample == "none":
            y = conv1(x, *norm1.coefficients(x), act)
        else:
            y = act(norm1(x))
            x, y = resample(x), resample(y)
            y = conv1(y)
        scale_shift = None
        if condition is not None:
            added = self.modulation == "added"
            features = self.features if added else 2 * self.features
            modulation = Dense(features=features, name="time_emb_proj", **dtypes)(act(condition))
            if added:
                y = y + modulation[:, None, None, None]
            else:
                scale_shift = modulation
        coefficients = norm("norm2").coefficients(y, scale_shift)
        y = conv(SPATIAL, "conv2")(y, *coefficients, act)
        if x.shape[-1] != self.features:
            x = conv(POINTWISE, "conv_shortcut")(x)
        y = x + y
        return shard_clip(y if self.residual_divisor == 1 else y / self.residual_divisor)


class ResizeConv(nn.Module):
    """Halves or doubles the rows and columns, with one convolution.

    Attributes:
        features: channels of the output.
        resample: "down" computes every second row and column of a convolution. "up" repeats rows
            and columns, then convolves.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    features: int
    resample: str
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t h w c"], condition: Float[Array, "b d"] | None = None
    ) -> Float[Array, "b t h2 w2 f"]:
        """Returns the resized clip.

        Args:
            x: activations.
            condition: not used. It modulates the blocks that resize in other families of U-Nets.
        """
        is_down = self.resample == "down"
        conv = Conv(
            features=self.features,
            kernel_size=SPATIAL,
            space_stride=2 if is_down else 1,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )
        return shard_clip(conv(x if is_down else upsample_space(x)))


class ConvInflation(nn.Module):
    """Lumiere's convolution-based inflation block (arXiv 2401.12945, section 3.1).

    The input passes through a spatial convolution, a temporal convolution and a linear projection.
    A norm and an activation follow each convolution. The result is added to the input. The
    projection starts at zero, so the block starts as a no-op.

    Attributes:
        groups: number of groups in each group norm.
        activation: a key of `layers.ACTIVATIONS`.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    groups: int
    activation: str
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def norm(name):
            return GroupNorm(groups=self.groups, name=name, **dtypes)

        def conv(kernel_size, name, **init):
            features = x.shape[-1]
            return Conv(features=features, kernel_size=kernel_size, name=name, **init, **dtypes)

        act = ACTIVATIONS[self.activation]
        y = conv(SPATIAL, "conv_spatial")(x)
        y = act(norm("norm_spatial")(y))
        y = conv(TEMPORAL, "conv_temporal")(y)
        y = act(norm("norm_temporal")(y))
        y = conv(POINTWISE, "proj", kernel_init=nn.initializers.zeros)(y)
        return shard_clip(x + y)


class TemporalDownsample(nn.Module):
    """Temporal down-sampling: a temporal convolution, computed only for frames 0, factor, ...

    With the identity initialisation it starts as nearest-neighbour resizing (Lumiere, arXiv
    2401.12945, appendix B).

    Attributes:
        factor: the number of frames is divided by this.
        kernel_init: initialiser of the convolution's kernel.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    factor: int
    kernel_init: nn.initializers.Initializer = identity_temporal_kernel
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b s h w c"]:
        conv = Conv(
            features=x.shape[-1],
            kernel_size=TEMPORAL,
            time_stride=self.factor,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )
        return conv(x)


class TemporalUpsample(nn.Module):
    """Temporal up-sampling: each frame is repeated, then a temporal convolution follows.

    With the identity initialisation it starts as nearest-neighbour resizing (Lumiere, arXiv
    2401.12945, appendix B).

    Attributes:
        factor: the number of frames is multiplied by this.
        kernel_init: initialiser of the convolution's kernel.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    factor: int
    kernel_init: nn.initializers.Initializer = identity_temporal_kernel
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b s h w c"]:
        conv = Conv(
            features=x.shape[-1],
            kernel_size=TEMPORAL,
            time_repeat=self.factor,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )
        return conv(x)
