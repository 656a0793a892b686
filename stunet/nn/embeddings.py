"""Conditioning vectors: the noise level, and a text prompt pooled to one vector."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stunet.nn.layers import ACTIVATIONS, Dense, LayerNorm


def sinusoidal_embedding(
    position: Float[Array, "b"],
    features: int,
    *,
    cosine_first: bool = True,
    frequency_shift: float = 0.0,
) -> Float[Array, "b d"]:
    """Sines and cosines at geometrically spaced frequencies from 1 to 1/10000 (Vaswani et al.,
    arXiv 1706.03762).

    `frequency_shift` s makes the exponents i / (features / 2 - s).
    """
    half = features // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - frequency_shift)
    angle = position.astype(jnp.float32)[:, None] * jnp.exp(-jnp.log(10000.0) * exponent)
    parts = (jnp.cos(angle), jnp.sin(angle)) if cosine_first else (jnp.sin(angle), jnp.cos(angle))
    return jnp.concatenate(parts, axis=-1)


class TimeEmbedding(nn.Module):
    """Noise time `[b]` in 0..1 -> `[b, features]`: a sinusoidal code, then two dense layers."""

    features: int
    code_features: int
    activation: str
    time_scale: float = 1000.0
    cosine_first: bool = True
    frequency_shift: float = 0.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, "b"]) -> Float[Array, "b d"]:
        code = sinusoidal_embedding(
            t * self.time_scale,
            self.code_features,
            cosine_first=self.cosine_first,
            frequency_shift=self.frequency_shift,
        )
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = Dense(self.features, name="linear_1", **dtypes)(code)
        return Dense(self.features, name="linear_2", **dtypes)(ACTIVATIONS[self.activation](hidden))


class TextPooling(nn.Module):
    """Text states `[b, l, d]` -> `[b, features]`, to be added to the time embedding.

    Attention pooling as in DeepFloyd IF: the mean state plus a learned vector attends to itself and
    to all states. All l states count, padding included, as there.
    """

    features: int
    heads: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, text: Float[Array, "b l d"]) -> Float[Array, "b f"]:
        b, _, d = text.shape
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        text = LayerNorm(name="norm1", **dtypes)(text)
        position = self.param(
            "positional_embedding",
            nn.with_logical_partitioning(nn.initializers.normal(d**-0.5), (None, "channels")),
            (1, d),
            self.param_dtype,
        )
        query = text.mean(1, keepdims=True) + position.astype(self.dtype)
        tokens = jnp.concatenate([query, text], axis=1)

        def heads(name, x):
            return Dense(d, name=name, **dtypes)(x).reshape(b, -1, self.heads, d // self.heads)

        pooled = jax.nn.dot_product_attention(
            heads("q_proj", query), heads("k_proj", tokens), heads("v_proj", tokens)
        )
        pooled = Dense(self.features, name="proj", **dtypes)(pooled.reshape(b, d))
        return LayerNorm(name="norm2", **dtypes)(pooled)
