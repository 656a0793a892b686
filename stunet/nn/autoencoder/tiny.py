"""The small autoencoder TAESD, `AutoencoderTiny` of diffusers, for previews.

It was distilled from the autoencoder of Stable Diffusion (Ollin Boer Bohan, TAESD). It is a stack
of convolutions, and its latents have no spread.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from stunet.errors import UserError
from stunet.nn.autoencoder.architecture import Architecture, Count, Counts, Scale, parse

_ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu, "swish": nn.silu}
_FIXED = {"upsample_fn": {"nearest"}, "upsampling_scaling_factor": {2}}
# diffusers computes tiles of this many rows and columns.
_TILE = 512


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    """The keys of config.json that determine the computation, with the defaults of diffusers.

    `latent_magnitude` and `latent_shift` are for storing latents as bytes, which is not done here.
    """

    in_channels: Count = 3
    out_channels: Count = 3
    encoder_block_out_channels: Counts = (64, 64, 64, 64)
    decoder_block_out_channels: Counts = (64, 64, 64, 64)
    block_out_channels: Counts = (64, 64, 64, 64)
    act_fn: str = "relu"
    latent_channels: Count = 4
    num_encoder_blocks: Counts = (1, 3, 3, 3)
    num_decoder_blocks: Counts = (3, 3, 3, 1)
    latent_magnitude: float = 3.0
    latent_shift: float = 0.5
    scaling_factor: Scale = 1.0
    shift_factor: float | None = 0.0


def _conv(features: int, name: str, **settings: Any) -> nn.Conv:
    return nn.Conv(features=features, kernel_size=(3, 3), padding=1, name=name, **settings)


class _Block(nn.Module):
    """Residual block of three convolutions, of which the last two follow an activation.

    Attributes:
        features: channels.
        activation: a key of `_ACTIVATIONS`; after the sum, it is a ReLU in any case.
    """

    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y, act = x, _ACTIVATIONS[self.activation]
        for i in range(3):
            y = _conv(self.features, f"conv.{2 * i}")(act(y) if i else y)
        return nn.relu(x + y)


class Half(nn.Module):
    """Encoder or decoder: levels of blocks, with a convolution that resizes between two levels.

    Attributes:
        features: channels of the blocks.
        blocks: number of blocks of each level.
        out_channels: channels of the output.
        activation: a key of `_ACTIVATIONS`.
        enlarges: True for the decoder, which doubles rows and columns from level to level. The
            encoder halves them.
    """

    features: int
    blocks: Sequence[int]
    out_channels: int
    activation: str
    enlarges: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 o"]:
        # The layers' numbers in diffusers, which also counts those without weights.
        number = 0

        def name(skip: int = 0) -> str:
            nonlocal number
            number += 1 + skip
            return f"layers.{number - 1}"

        x = _conv(self.features, name())(x)
        if self.enlarges:
            x = _ACTIVATIONS[self.activation](x)
            number += 1
        for level, count in enumerate(self.blocks):
            if level and self.enlarges:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = _conv(self.features, name(skip=1), use_bias=False)(x)
            elif level:
                x = _conv(self.features, name(), strides=2, use_bias=False)(x)
            for _ in range(count):
                x = _Block(features=self.features, activation=self.activation, name=name())(x)
        return _conv(self.out_channels, name())(x)


class AutoencoderTiny(nn.Module):
    """Encodes and decodes frames, each by itself, in float32.

    Attributes:
        config: sizes of the network.
    """

    config: TinyConfig

    def setup(self):
        c = self.config
        self.encoder = Half(
            features=c.encoder_block_out_channels[0],
            blocks=c.num_encoder_blocks,
            out_channels=c.latent_channels,
            activation=c.act_fn,
            enlarges=False,
        )
        self.decoder = Half(
            features=c.decoder_block_out_channels[0],
            blocks=c.num_decoder_blocks,
            out_channels=c.out_channels,
            activation=c.act_fn,
            enlarges=True,
        )

    def __call__(self, frames: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Returns the frames that the latents decode to."""
        return self.decode(self.encode(frames))

    def encode(self, frames: Float[Array, "n h w c"]) -> Float[Array, "n y x z"]:
        """Returns the latents.

        Args:
            frames: pictures, -1..1. Rows and columns are multiples of the autoencoder's factor.
        """
        return self.encoder((frames + 1) / 2)

    def decode(self, latents: Float[Array, "n y x z"]) -> Float[Array, "n h w c"]:
        """Returns the frames of latents, about -1..1."""
        return 2 * self.decoder(3 * jnp.tanh(latents / 3)) - 1


def tiny(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns the autoencoder that a config.json of an `AutoencoderTiny` describes.

    Args:
        config: content of config.json.
        path: path of config.json, for error messages.

    Raises:
        UserError: the file describes a network that is not implemented, or has a wrong key.
    """
    c = parse(config, TinyConfig, _FIXED | {"act_fn": set(_ACTIVATIONS)}, path)
    for half in ("encoder", "decoder"):
        widths = getattr(c, f"{half}_block_out_channels")
        blocks = getattr(c, f"num_{half}_blocks")
        if len(set(widths)) > 1 or len(widths) != len(blocks):
            raise UserError(
                f"{path} has {half}_block_out_channels {list(widths)} and num_{half}_blocks "
                f"{list(blocks)}; the levels need equal widths, and one number of blocks each"
            )
    if len(c.num_encoder_blocks) != len(c.num_decoder_blocks):
        raise UserError(
            f"{path} has {len(c.num_encoder_blocks)} levels in num_encoder_blocks and "
            f"{len(c.num_decoder_blocks)} in num_decoder_blocks; frames would change their size"
        )
    return Architecture(
        module=AutoencoderTiny(config=c),
        channels=c.in_channels,
        latent_channels=c.latent_channels,
        has_std=False,
        factor=2 ** (len(c.num_encoder_blocks) - 1),
        shift=(c.shift_factor or 0.0,),
        scale=(c.scaling_factor,),
        tile=_TILE,
    )
