"""Embeddings that condition the whole network: noise time, text as one vector, picture sizes."""

from typing import Any

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
    """Encodes positions as sines and cosines (Vaswani et al., arXiv 1706.03762).

    Angular frequency i is 10000 ** -(i / (features / 2 - frequency_shift)). So the frequencies fall
    geometrically from 1 to about 1/10000.

    Args:
        position: any numbers.
        features: d, an even number.
        cosine_first: the cosines come before the sines.
        frequency_shift: 1 makes the lowest frequency exactly 1/10000; 0 leaves it a little above.
    """
    half = features // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - frequency_shift)
    angle = position.astype(jnp.float32)[:, None] * jnp.exp(-jnp.log(10000.0) * exponent)
    parts = (jnp.cos(angle), jnp.sin(angle)) if cosine_first else (jnp.sin(angle), jnp.cos(angle))
    return jnp.concatenate(parts, axis=-1)


class TimeEmbedding(nn.Module):
    """Embeds noise times in 0..1: a sinusoidal code, then two dense layers.

    Attributes:
        features: features of the embedding.
        code_features: features of the sinusoidal code.
        activation: a key of `layers.ACTIVATIONS`, between the dense layers.
        time_scale: the time is multiplied by this before it is encoded.
        cosine_first: order of the code, see `sinusoidal_embedding`.
        frequency_shift: frequencies of the code, see `sinusoidal_embedding`.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

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
        return _two_layers(code, self.features, self.activation, **dtypes)


class TextAndSizeEmbedding(nn.Module):
    """Embeds a pooled text and the sizes of the picture, as Stable Diffusion XL does.

    Each size is encoded as sines and cosines. Two dense layers follow the codes and the pooled text
    (Podell et al., arXiv 2307.01952, section 2.2).

    Attributes:
        features: features of the embedding.
        code_features: features of the sinusoidal code of each size.
        activation: a key of `layers.ACTIVATIONS`, between the dense layers.
        cosine_first: order of the code, see `sinusoidal_embedding`.
        frequency_shift: frequencies of the code, see `sinusoidal_embedding`.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    features: int
    code_features: int
    activation: str
    cosine_first: bool = True
    frequency_shift: float = 0.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "b p"], sizes: Float[Array, "s"]
    ) -> Float[Array, "b d"]:
        """Returns the embedding.

        Args:
            pooled: one vector for each text.
            sizes: numbers of pixels, which are the same for all pictures.
        """
        codes = sinusoidal_embedding(
            sizes,
            self.code_features,
            cosine_first=self.cosine_first,
            frequency_shift=self.frequency_shift,
        )
        codes = jnp.broadcast_to(codes.reshape(-1), (len(pooled), codes.size))
        both = jnp.concatenate([pooled, codes], axis=-1)
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return _two_layers(both, self.features, self.activation, **dtypes)


class TextPooling(nn.Module):
    """Pools text states to one vector, which is added to the time embedding.

    The attention pooling is that of DeepFloyd IF. The query is the mean state plus a learned
    vector. The query attends to itself and to all states. As in DeepFloyd IF, padding takes part in
    the mean and in the attention.

    Attributes:
        features: features of the vector.
        heads: number of attention heads; must divide the number of features of the text states.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
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
            projected = Dense(features=d, name=name, **dtypes)(x)
            return projected.reshape(b, -1, self.heads, d // self.heads)

        pooled = jax.nn.dot_product_attention(
            heads("q_proj", query), heads("k_proj", tokens), heads("v_proj", tokens)
        )
        pooled = Dense(features=self.features, name="proj", **dtypes)(pooled.reshape(b, d))
        return LayerNorm(name="norm2", **dtypes)(pooled)


def _two_layers(
    x: Float[Array, "b e"], features: int, activation: str, **dtypes: Any
) -> Float[Array, "b d"]:
    """Applies two dense layers with an activation between them, within a module's `__call__`."""
    hidden = Dense(features=features, name="linear_1", **dtypes)(x)
    return Dense(features=features, name="linear_2", **dtypes)(ACTIVATIONS[activation](hidden))
