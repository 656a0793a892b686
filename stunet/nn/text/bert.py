"""BERT (Devlin et al., arXiv 1810.04805), the architecture of MiniLM."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.nn.text.checkpoint import Architecture, Epsilon, Layers, Size


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The keys of a checkpoint's config.json that determine the computation."""

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size = 512
    type_vocab_size: Size = 2
    layer_norm_eps: Epsilon = 1e-12


class Bert(nn.Module):
    """Encodes token ids as states of `hidden_size` features, in float32.

    Every token belongs to the first segment.

    Attributes:
        config: sizes of the network.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Returns the state of each token.

        Args:
            ids: token ids in 0..vocab_size - 1; l is at most max_position_embeddings.
            mask: True on tokens, False on padding. No token attends to padding, and the states of
                padding mean nothing.
        """
        c = self.config

        def embed(count: int, name: str) -> nn.Embed:
            return nn.Embed(
                num_embeddings=count, features=c.hidden_size, dtype=jnp.float32, name=name
            )

        x = embed(c.vocab_size, "words")(ids)
        x += embed(c.max_position_embeddings, "positions")(jnp.arange(ids.shape[1]))
        x += embed(c.type_vocab_size, "segments")(jnp.zeros((), jnp.int32))
        norm = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=jnp.float32, name="embedding_norm")
        x = norm(x)
        bias = jnp.where(mask[:, None, None, :], 0, jnp.finfo(jnp.float32).min)
        for i in range(c.num_hidden_layers):
            x = _Layer(config=c, name=f"layer_{i}")(x, bias)
        return x


class _Layer(nn.Module):
    """One layer: self-attention, then a feed-forward network.

    The output of each part is added to the part's input, and the sum is normalised.

    Attributes:
        config: sizes of the network.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], bias: Float[Array, "b 1 1 l"]):
        c = self.config

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features=features, dtype=jnp.float32, name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=jnp.float32, name=name)

        heads = (*x.shape[:-1], c.num_attention_heads, -1)
        q, k, v = (
            dense(c.hidden_size, name)(x).reshape(heads) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(jnp.float32(q.shape[-1]))
        attended = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores + bias), v)
        attended = dense(c.hidden_size, "attention_output")(attended.reshape(x.shape))
        x = norm("attention_norm")(x + attended)
        hidden = nn.gelu(dense(c.intermediate_size, "intermediate")(x), approximate=False)
        return norm("output_norm")(x + dense(c.hidden_size, "output")(hidden))


def bert(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns the architecture that a checkpoint's config.json describes.

    Args:
        config: content of config.json.
        path: path of config.json, for error messages.

    Raises:
        UserError: the file does not describe a supported BERT, or lacks a key.
    """
    for key, value in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
    ):
        if config.get(key, value) != value:
            raise UserError(f"{path} has {key} {config[key]!r}; this BERT needs {value!r}")
    c = jsonfiles.convert(config, BertConfig, path)
    modules = {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "segments": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
    }
    for i in range(c.num_hidden_layers):
        ours, theirs = f"layer_{i}", f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            modules[f"{ours}/{name}"] = f"{theirs}.attention.self.{name}"
        modules |= {
            f"{ours}/attention_output": f"{theirs}.attention.output.dense",
            f"{ours}/attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"{ours}/intermediate": f"{theirs}.intermediate.dense",
            f"{ours}/output": f"{theirs}.output.dense",
            f"{ours}/output_norm": f"{theirs}.output.LayerNorm",
        }
    names = {}
    for ours, theirs in modules.items():
        if theirs.endswith("embeddings"):
            names[f"{ours}/embedding"] = (f"{theirs}.weight",)
        else:
            weight = "scale" if theirs.endswith("LayerNorm") else "kernel"
            names[f"{ours}/{weight}"] = (f"{theirs}.weight",)
            names[f"{ours}/bias"] = (f"{theirs}.bias",)
    return Architecture(
        module=Bert(config=c),
        weight_names=names,
        vocab_size=c.vocab_size,
        dim=c.hidden_size,
        max_length=c.max_position_embeddings,
    )
