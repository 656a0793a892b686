"""The encoder of T5-v1.1, whose token states Imagen and DeepFloyd IF attend to.

T5 is the transformer of Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer" (arXiv 1910.10683). It differs from other transformers in four ways.
Layers normalise their input by its root mean square alone. No layer has a bias. Attention scores
are not scaled. Positions enter as a learned bias, which is added to the scores: one value for each
head and each bucket of distances. All layers share this bias, and checkpoints store it in the first
layer. Version 1.1 has gated GELUs (arXiv 2002.05202).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.nn.text.checkpoint import Architecture, Epsilon, Layers, Size


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The keys of a checkpoint's config.json that determine the encoder's computation."""

    vocab_size: Size
    d_model: Size
    d_kv: Size
    d_ff: Size
    num_layers: Layers
    num_heads: Size
    relative_attention_num_buckets: Size = 32
    relative_attention_max_distance: Size = 128
    layer_norm_epsilon: Epsilon = 1e-6


class T5Encoder(nn.Module):
    """Encodes token ids as states of `d_model` features, in float32.

    Attributes:
        config: sizes of the network.
    """

    config: T5Config

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Returns the state of each token.

        Args:
            ids: token ids in 0..vocab_size - 1.
            mask: True on tokens, False on padding. No token attends to padding, and the states of
                padding mean nothing.
        """
        c, length = self.config, ids.shape[1]
        embed = nn.Embed(
            num_embeddings=c.vocab_size, features=c.d_model, dtype=jnp.float32, name="shared"
        )
        x = embed(ids)
        position = np.arange(length)
        buckets = relative_position_bucket(
            position[None] - position[:, None],
            c.relative_attention_num_buckets,
            c.relative_attention_max_distance,
        )
        table = nn.Embed(
            num_embeddings=c.relative_attention_num_buckets,
            features=c.num_heads,
            dtype=jnp.float32,
            name="relative_attention_bias",
        )
        bias = table(jnp.asarray(buckets)).transpose(2, 0, 1)
        bias = jnp.where(mask[:, None, None, :], bias, jnp.finfo(jnp.float32).min)
        for i in range(c.num_layers):
            x = _Block(config=c, name=f"block_{i}")(x, bias)
        return _rms_norm(c, "final_norm")(x)


def _rms_norm(config: T5Config, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=config.layer_norm_epsilon, dtype=jnp.float32, name=name)


class _Block(nn.Module):
    """One block: self-attention, then a gated feed-forward network.

    The output of each part is added to the part's input.

    Attributes:
        config: sizes of the network.
    """

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], bias: Float[Array, "b h l l"]):
        c = self.config

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features=features, use_bias=False, dtype=jnp.float32, name=name)

        h = _rms_norm(c, "attention_norm")(x)
        q, k, v = (
            dense(c.num_heads * c.d_kv, name)(h).reshape(*h.shape[:-1], c.num_heads, c.d_kv)
            for name in ("q", "k", "v")
        )
        # The scores are not divided by the root of d_kv: T5 is initialised and trained without it.
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) + bias)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        x += dense(c.d_model, "o")(attended.reshape(*h.shape[:-1], -1))
        h = _rms_norm(c, "feed_forward_norm")(x)
        gate = nn.gelu(dense(c.d_ff, "wi_0")(h), approximate=True)
        return x + dense(c.d_model, "wo")(gate * dense(c.d_ff, "wi_1")(h))


def relative_position_bucket(
    distance: Int[np.ndarray, "..."], buckets: int, max_distance: int
) -> Int[np.ndarray, "..."]:
    """Returns the bucket of each distance (section 2.1 of arXiv 1910.10683).

    The lower half of the buckets is for keys at or to the left of the query. The upper half is for
    keys to the right. On each side, every bucket of the first half holds a single distance. The
    other buckets of this side hold ranges of distances, which grow geometrically up to
    `max_distance`. The last bucket of a side also holds all larger distances.

    Args:
        distance: position of the key minus that of the query, in tokens.
        buckets: number of buckets.
        max_distance: all distances of this many tokens or more share a bucket.
    """
    half = buckets // 2
    exact = half // 2
    right = np.where(distance > 0, half, 0)
    distance = np.abs(distance)
    # In float32, as in the training of the checkpoints: at whole powers, rounding decides.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    scaled = ratio / np.float32(np.log(max_distance / exact)) * np.float32(half - exact)
    far = np.minimum(exact + scaled.astype(np.int64), half - 1)
    return (right + np.where(distance < exact, distance, far)).astype(np.int32)


def t5(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns the architecture that a checkpoint's config.json describes.

    Args:
        config: content of config.json.
        path: path of config.json, for error messages.

    Raises:
        UserError: the file does not describe a T5-v1.1, or lacks a key.
    """
    found = config.get("model_type"), config.get("feed_forward_proj")
    if found != ("t5", "gated-gelu"):
        raise UserError(
            f"{path} has model_type {found[0]!r} and feed_forward_proj {found[1]!r}; a T5-v1.1 "
            "checkpoint has 't5' and 'gated-gelu'"
        )
    c = jsonfiles.convert(config, T5Config, path)
    names = {
        # One weight, which a checkpoint may hold under either name.
        "shared/embedding": ("shared.weight", "encoder.embed_tokens.weight"),
        "relative_attention_bias/embedding": (
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
        "final_norm/scale": ("encoder.final_layer_norm.weight",),
    }
    for i in range(c.num_layers):
        ours, attention, mlp = (
            f"block_{i}",
            f"encoder.block.{i}.layer.0",
            f"encoder.block.{i}.layer.1",
        )
        names[f"{ours}/attention_norm/scale"] = (f"{attention}.layer_norm.weight",)
        names[f"{ours}/feed_forward_norm/scale"] = (f"{mlp}.layer_norm.weight",)
        for name in ("q", "k", "v", "o"):
            names[f"{ours}/{name}/kernel"] = (f"{attention}.SelfAttention.{name}.weight",)
        for name in ("wi_0", "wi_1", "wo"):
            names[f"{ours}/{name}/kernel"] = (f"{mlp}.DenseReluDense.{name}.weight",)
    return Architecture(
        module=T5Encoder(config=c),
        weight_names=names,
        vocab_size=c.vocab_size,
        dim=c.d_model,
        max_length=None,
    )
