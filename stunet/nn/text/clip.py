"""The text model of CLIP, whose token states Stable Diffusion 1, 2 and XL attend to.

CLIP is Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(arXiv 2103.00020). Its text model is a causal transformer: a token attends to itself and to the
tokens before it, padding included. Stable Diffusion 1 takes the states of CLIP's L/14. Stable
Diffusion 2 takes those of OpenCLIP's H/14, whose checkpoint lacks the last layer. Stable Diffusion
XL takes the states before the last layer of L/14 and of OpenCLIP's bigG/14, without a final norm.
"""

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

# The end token that old checkpoints state. Theirs is in truth the largest of all ids.
_OLD_END = 2

_ACTIVATIONS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: nn.gelu(x, approximate=False),
}


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The keys of a checkpoint's config.json that determine the computation.

    The defaults are those of transformers, which may leave them out.
    """

    vocab_size: Size = 49408
    hidden_size: Size = 512
    intermediate_size: Size = 2048
    projection_dim: Size = 512
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = 8
    max_position_embeddings: Size = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5
    eos_token_id: int = 49407


class ClipText(nn.Module):
    """Encodes token ids as states of `hidden_size` features, in float32.

    Attributes:
        config: sizes of the network.
        penultimate: True for the states before the last layer, which no norm follows. False for
            the normalised states after the last layer.
        projects: True if the checkpoint has a projection for pooled text.
    """

    config: ClipConfig
    penultimate: bool = False
    projects: bool = False

    @property
    def pools(self) -> bool:
        """Tells whether pooled text comes before the states, as in Stable Diffusion XL."""
        return self.penultimate and self.projects

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b n d"]:
        """Returns the state of each token, after one for the pooled text if there is one (`pools`).

        The pooled text is the projected state of the text's end token, from the last layer. CLIP
        compares it with pictures. Its state is filled up with zeros.

        Args:
            ids: token ids in 0..vocab_size - 1; l is at most max_position_embeddings.
            mask: False on tokens to which no token attends. It is True everywhere for Stable
                Diffusion, whose padding is part of the text.
        """
        c = self.config

        def embed(count: int, name: str) -> nn.Embed:
            return nn.Embed(
                num_embeddings=count, features=c.hidden_size, dtype=jnp.float32, name=name
            )

        x = embed(c.vocab_size, "words")(ids)
        x += embed(c.max_position_embeddings, "positions")(jnp.arange(ids.shape[1]))
        sees = jnp.tri(ids.shape[1], dtype=bool) & mask[:, None, None, :]
        before = x
        for i in range(c.num_hidden_layers):
            before, x = x, _Layer(config=c, name=f"layer_{i}")(x, sees)
        x = nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=jnp.float32, name="final_norm")(x)
        if not self.pools:
            return before if self.penultimate else x
        # The first end token, since padding may be the same token.
        end = jnp.argmax(ids if c.eos_token_id == _OLD_END else ids == c.eos_token_id, axis=1)
        dense = nn.Dense(
            features=c.projection_dim, use_bias=False, dtype=jnp.float32, name="projection"
        )
        pooled = dense(jnp.take_along_axis(x, end[:, None, None], axis=1))
        wide = jnp.pad(pooled, ((0, 0), (0, 0), (0, c.hidden_size - c.projection_dim)))
        return jnp.concatenate([wide, before], axis=1)


class _Layer(nn.Module):
    """One layer: self-attention, then a feed-forward network.

    Each part normalises its input, and its output is added to the part's input.

    Attributes:
        config: sizes of the network.
    """

    config: ClipConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], sees: Bool[Array, "b 1 l l"]):
        c = self.config

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features=features, dtype=jnp.float32, name=name)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=c.layer_norm_eps, dtype=jnp.float32, name=name)

        h, heads = norm("attention_norm")(x), (*x.shape[:-1], c.num_attention_heads, -1)
        q, k, v = (dense(c.hidden_size, name)(h).reshape(heads) for name in ("q", "k", "v"))
        attended = jax.nn.dot_product_attention(q, k, v, mask=sees)
        x += dense(c.hidden_size, "o")(attended.reshape(x.shape))
        h = dense(c.intermediate_size, "wi")(norm("feed_forward_norm")(x))
        return x + dense(c.hidden_size, "wo")(_ACTIVATIONS[c.hidden_act](h))


def clip(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns the text model that a config.json describes, with the states of its last layer.

    Args:
        config: content of config.json.
        path: path of config.json, for error messages.

    Raises:
        UserError: the file does not describe a CLIP text model, or has a wrong key.
    """
    return _architecture(config, path, penultimate=False)


def penultimate_clip(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns what `clip` does, with the states before the last layer."""
    return _architecture(config, path, penultimate=True)


def _architecture(config: Mapping[str, Any], path: str, penultimate: bool) -> Architecture:
    if config.get("model_type") != "clip_text_model":
        raise UserError(
            f"{path} has model_type {config.get('model_type')!r}; the text model of CLIP has "
            "'clip_text_model'"
        )
    c = jsonfiles.convert(config, ClipConfig, path)
    if c.hidden_act not in _ACTIVATIONS or c.hidden_size % c.num_attention_heads:
        raise UserError(
            f"{path} has hidden_act {c.hidden_act!r} and {c.num_attention_heads} heads for "
            f"hidden_size {c.hidden_size}; CLIP has one of {', '.join(_ACTIVATIONS)}, and heads of "
            "equal size"
        )
    projects = "CLIPTextModelWithProjection" in (config.get("architectures") or ())
    if projects and penultimate and c.projection_dim > c.hidden_size:
        raise UserError(
            f"{path} has projection_dim {c.projection_dim} above hidden_size {c.hidden_size}; in "
            "Stable Diffusion XL both are 1280"
        )
    modules = {
        "words/embedding": "embeddings.token_embedding",
        "positions/embedding": "embeddings.position_embedding",
        "final_norm/scale": "final_layer_norm",
    }
    for i in range(c.num_hidden_layers):
        ours, theirs = f"layer_{i}", f"encoder.layers.{i}"
        modules |= {
            f"{ours}/attention_norm/scale": f"{theirs}.layer_norm1",
            f"{ours}/feed_forward_norm/scale": f"{theirs}.layer_norm2",
            f"{ours}/wi/kernel": f"{theirs}.mlp.fc1",
            f"{ours}/wo/kernel": f"{theirs}.mlp.fc2",
            f"{ours}/o/kernel": f"{theirs}.self_attn.out_proj",
        }
        for name in ("q", "k", "v"):
            modules[f"{ours}/{name}/kernel"] = f"{theirs}.self_attn.{name}_proj"
    names = {}
    for ours, theirs in modules.items():
        # Newer versions of transformers leave the prefix out.
        names[ours] = tuple(f"{prefix}{theirs}.weight" for prefix in ("text_model.", ""))
        module, _, weight = ours.rpartition("/")
        if weight != "embedding":
            names[f"{module}/bias"] = tuple(f"{n.removesuffix('weight')}bias" for n in names[ours])
    if projects:
        names["projection/kernel"] = ("text_projection.weight",)
    return Architecture(
        module=ClipText(config=c, penultimate=penultimate, projects=projects),
        weight_names=names,
        vocab_size=c.vocab_size,
        dim=c.hidden_size,
        max_length=c.max_position_embeddings,
        pads=True,
    )
