"""The spatial transformer, which is the attention block of Stable Diffusion's U-Nets.

It is that of Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv
2112.10752, section 3.3), as diffusers' `Transformer2DModel` computes it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from stunet.nn.attention import flash_attention, frame_attention
from stunet.nn.blocks import POINTWISE
from stunet.nn.layers import Conv, Dense, GroupNorm, shard_clip
from stunet.nn.remat import rematerialised
from stunet.nn.sharding import constrain

# The feed-forward network's hidden features, for each feature of its input.
_EXPANSION = 4


class SpatialTransformer(nn.Module):
    """Residual transformer over the positions of each frame, which also attends to the text.

    A group norm and a projection come before the transformer's blocks, and a projection follows.

    Attributes:
        depth: number of transformer blocks.
        head_channels: features of one attention head; must divide the number of channels.
        groups: number of groups in the group norm.
        linear: store both projections as matrices. Otherwise they are stored as kernels of 1x1
            convolutions, which compute the same.
        flash: compute self-attention with `flash_attention`.
        remat: a key of `remat.REMAT_POLICIES`, or "none". Each transformer block is rematerialised
            by itself.
        scanned: `nn.scan` repeats the layer around this block.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    depth: int
    head_channels: int
    groups: int
    linear: bool
    flash: bool = False
    remat: str = "none"
    scanned: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Adds the transformer's output to `x`.

        Args:
            x: activations.
            text: token states; None leaves out the attention to the text.
            mask: False on tokens that are not attended to; None keeps all tokens. Where it is False
                on all tokens, they are weighed equally.
        """
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def projection(name):
            if self.linear:
                return Dense(features=x.shape[-1], name=name, **dtypes)
            return Conv(features=x.shape[-1], kernel_size=POINTWISE, name=name, **dtypes)

        y = GroupNorm(groups=self.groups, epsilon=1e-6, name="norm", **dtypes)(x)
        y = projection("proj_in")(y)
        for i in range(self.depth):
            block = rematerialised(TransformerBlock, self.remat, prevent_cse=not self.scanned)(
                head_channels=self.head_channels,
                flash=self.flash,
                name=f"transformer_blocks_{i}",
                **dtypes,
            )
            y = block(y, text, mask)
        return shard_clip(x + projection("proj_out")(y))


class TransformerBlock(nn.Module):
    """Self-attention within each frame, attention to the text, and a feed-forward network.

    A layer norm comes before each of the three, and the output of each is added to its input.

    Attributes:
        head_channels: features of one attention head; must divide the number of channels.
        flash: compute self-attention with `flash_attention`.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    head_channels: int
    flash: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Returns the block's output. Without `text`, there is no attention to text."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def norm(name):
            return nn.LayerNorm(
                epsilon=1e-5,
                scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("channels",)),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("channels",)),
                name=name,
                **dtypes,
            )

        def attention(name):
            return Attention(
                head_channels=self.head_channels, flash=self.flash, name=name, **dtypes
            )

        x = shard_clip(x + attention("attn1")(norm("norm1")(x)))
        if text is not None:
            x = shard_clip(x + attention("attn2")(norm("norm2")(x), text, mask))
        return shard_clip(x + GatedFeedForward(name="ff", **dtypes)(norm("norm3")(x)))


class Attention(nn.Module):
    """Attention of the positions in each frame to one another, or to the text.

    Attributes:
        head_channels: features of one attention head; must divide the number of channels.
        flash: compute self-attention with `flash_attention`. Attention to the text, whose keys are
            few, is always computed by its definition.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    head_channels: int
    flash: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Returns the weighted values of the text, or of the frame itself if `text` is None."""
        b, t, h, w, c = x.shape
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        states = x.reshape(b, t, h * w, c)

        def heads(name, values):
            projected = Dense(features=c, use_bias=False, name=name, **dtypes)(values)
            return projected.reshape(*values.shape[:-1], -1, self.head_channels)

        query = heads("to_q", states)
        key, value = (heads(name, states if text is None else text) for name in ("to_k", "to_v"))
        if text is None:
            # A frame that is split over chips is gathered here: every position attends to all.
            key, value = (
                constrain(a, "batch", "frames", None, "features", None) for a in (key, value)
            )
            if self.flash:
                y = flash_attention(query, key, value, widen=True)
            else:
                y = frame_attention(query, key, value)
        else:
            shape = (b, t, *key.shape[1:])
            key, value = (jnp.broadcast_to(a[:, None], shape) for a in (key, value))
            y = frame_attention(query, key, value, mask)
        return Dense(features=c, name="to_out", **dtypes)(y.reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Feed-forward network whose hidden features are multiplied by gates (arXiv 2002.05202).

    A gate is the GELU of a hidden feature of its own ("GEGLU").

    Attributes:
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        c = x.shape[-1]
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = Dense(features=2 * _EXPANSION * c, name="proj_in", **dtypes)(x)
        hidden, gate = jnp.split(hidden, 2, axis=-1)
        hidden = hidden * jax.nn.gelu(gate, approximate=False)
        return Dense(features=c, name="proj_out", **dtypes)(hidden)
