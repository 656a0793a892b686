"""The autoencoder of Stable Diffusion, `AutoencoderKL` of diffusers.

It is Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv
2112.10752). The encoder gives each latent value a normal distribution.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from stunet.errors import UserError
from stunet.nn.attention import TextAttention
from stunet.nn.autoencoder.architecture import Architecture, Count, Counts, Scale, parse
from stunet.nn.blocks import POINTWISE, SPATIAL, ResnetBlock
from stunet.nn.layers import ACTIVATIONS, Conv, GroupNorm
from stunet.nn.resizing import upsample_space

_ACTIVATION = "silu"
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_EPSILON = 1e-6
_FIXED = {
    "act_fn": {_ACTIVATION, "swish"},
    "down_block_types": {_DOWN},
    "up_block_types": {_UP},
}


@dataclasses.dataclass(frozen=True)
class KlConfig:
    """The keys of config.json that determine the computation, with the defaults of diffusers."""

    in_channels: Count = 3
    out_channels: Count = 3
    block_out_channels: Counts = (64,)
    layers_per_block: Count = 1
    latent_channels: Count = 4
    norm_num_groups: Count = 32
    sample_size: Count = 32
    scaling_factor: Scale = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[Scale, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


def _norm(config: KlConfig, name: str) -> GroupNorm:
    return GroupNorm(groups=config.norm_num_groups, epsilon=_EPSILON, name=name)


def _conv(features: int, name: str) -> Conv:
    return Conv(features=features, kernel_size=SPATIAL, name=name)


def _resnet(config: KlConfig, features: int, name: str) -> ResnetBlock:
    return ResnetBlock(
        features=features,
        groups=config.norm_num_groups,
        activation=_ACTIVATION,
        epsilon=_EPSILON,
        name=name,
    )


def _middle(config: KlConfig, x: Array) -> Array:
    """Applies the blocks at the coarsest level, where all positions of a frame attend."""
    features = x.shape[-1]
    x = _resnet(config, features, "mid_block.resnets.0")(x)
    if config.mid_block_add_attention:
        attention = TextAttention(
            head_channels=features,
            groups=config.norm_num_groups,
            epsilon=_EPSILON,
            name="mid_block.attentions.0",
        )
        x = attention(x)
    return _resnet(config, features, "mid_block.resnets.1")(x)


def _output(config: KlConfig, x: Array, features: int) -> Array:
    """Normalises, and convolves to `features` channels."""
    coefficients = _norm(config, "conv_norm_out").coefficients(x)
    return _conv(features, "conv_out")(x, *coefficients, ACTIVATIONS[_ACTIVATION])


class Encoder(nn.Module):
    """Encodes frames as moments, before `quant_conv`.

    Attributes:
        config: sizes of the network.
    """

    config: KlConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n 1 h w c"]) -> Float[Array, "n 1 y x m"]:
        c = self.config
        x = _conv(c.block_out_channels[0], "conv_in")(x)
        for level, features in enumerate(c.block_out_channels):
            for i in range(c.layers_per_block):
                x = _resnet(c, features, f"down_blocks.{level}.resnets.{i}")(x)
            if level + 1 < len(c.block_out_channels):
                # Rows and columns of zeros after a frame, none before it.
                x = nn.Conv(
                    features=features,
                    kernel_size=(3, 3),
                    strides=2,
                    padding=((0, 1), (0, 1)),
                    name=f"down_blocks.{level}.downsamplers.0.conv",
                )(x[:, 0])[:, None]
        return _output(c, _middle(c, x), 2 * c.latent_channels)


class Decoder(nn.Module):
    """Decodes latents, after `post_quant_conv`, to frames.

    Attributes:
        config: sizes of the network.
    """

    config: KlConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n 1 y x z"]) -> Float[Array, "n 1 h w c"]:
        c = self.config
        x = _middle(c, _conv(c.block_out_channels[-1], "conv_in")(x))
        for level, features in enumerate(reversed(c.block_out_channels)):
            for i in range(c.layers_per_block + 1):
                x = _resnet(c, features, f"up_blocks.{level}.resnets.{i}")(x)
            if level + 1 < len(c.block_out_channels):
                x = _conv(features, f"up_blocks.{level}.upsamplers.0.conv")(upsample_space(x))
        return _output(c, x, c.out_channels)


class AutoencoderKL(nn.Module):
    """Encodes and decodes frames, each by itself, in float32.

    Attributes:
        config: sizes of the network.
    """

    config: KlConfig

    def setup(self):
        c = self.config
        self.encoder, self.decoder = Encoder(config=c), Decoder(config=c)
        if c.use_quant_conv:
            self.quant_conv = Conv(features=2 * c.latent_channels, kernel_size=POINTWISE)
        if c.use_post_quant_conv:
            self.post_quant_conv = Conv(features=c.latent_channels, kernel_size=POINTWISE)

    def __call__(self, frames: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Returns the frames that the means of the latents decode to."""
        return self.decode(self.encode(frames)[..., : self.config.latent_channels])

    def encode(self, frames: Float[Array, "n h w c"]) -> Float[Array, "n y x m"]:
        """Returns the means of the latents, and then the logarithms of their variances.

        Args:
            frames: pictures, -1..1. Rows and columns are multiples of the autoencoder's factor.
        """
        # A clip of one frame each, as the layers of the video network take them.
        moments = self.encoder(frames[:, None])
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        return moments[:, 0]

    def decode(self, latents: Float[Array, "n y x z"]) -> Float[Array, "n h w c"]:
        """Returns the frames of latents, about -1..1."""
        latents = latents[:, None]
        if self.config.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)[:, 0]


def kl(config: Mapping[str, Any], path: str) -> Architecture:
    """Returns the autoencoder that a config.json of an `AutoencoderKL` describes.

    Args:
        config: content of config.json.
        path: path of config.json, for error messages.

    Raises:
        UserError: the file describes a network that is not implemented, or has a wrong key.
    """
    c = parse(config, KlConfig, _FIXED, path)
    if any(width % c.norm_num_groups for width in c.block_out_channels):
        raise UserError(
            f"{path} has block_out_channels {list(c.block_out_channels)}; each must be a multiple "
            f"of norm_num_groups, {c.norm_num_groups}"
        )
    for name in ("latents_mean", "latents_std"):
        if getattr(c, name) is not None and len(getattr(c, name)) != c.latent_channels:
            raise UserError(
                f"{path} has {name} {list(getattr(c, name))}; each latent channel "
                f"needs one number, so {c.latent_channels}"
            )
    return describe_kl(c)


def to_diffusers(c: KlConfig) -> dict[str, Any]:
    """Returns the content of config.json that describes the autoencoder of a config."""
    levels = len(c.block_out_channels)
    return {
        "_class_name": AutoencoderKL.__name__,
        "act_fn": _ACTIVATION,
        "down_block_types": [_DOWN] * levels,
        "up_block_types": [_UP] * levels,
        **dataclasses.asdict(c),
    }


def describe_kl(c: KlConfig) -> Architecture:
    """Returns the autoencoder of a config."""
    return Architecture(
        module=AutoencoderKL(config=c),
        channels=c.in_channels,
        latent_channels=c.latent_channels,
        has_std=True,
        factor=2 ** (len(c.block_out_channels) - 1),
        shift=c.latents_mean or (c.shift_factor or 0.0,),
        scale=tuple(c.scaling_factor / std for std in c.latents_std or (1.0,)),
        tile=c.sample_size,
    )
