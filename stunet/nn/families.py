"""Families of text-to-image U-Nets: the blocks of which their layers consist.

All families have the same form, which `stunet.nn.stunet` describes. They differ in their residual
blocks, in their attention, in how they halve and double a frame, and in what they make of the text.
What inflation adds is the same for all: the blocks over time start as no-ops on any activations.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jax.typing import DTypeLike

from stunet.nn.attention import TemporalAttention, TextAttention
from stunet.nn.blocks import ConvInflation, ResizeConv, ResnetBlock
from stunet.nn.remat import rematerialised
from stunet.nn.transformer import SpatialTransformer


@dataclasses.dataclass(frozen=True)
class Family:
    """Says how one family of U-Nets computes what all families compute.

    Attributes:
        modulation: how the conditioning vector enters residual blocks (`ResnetBlock.modulation`).
        attention: makes the block that `Blocks.attention` returns.
        resize: makes the block that `Blocks.resize` returns.
        has_transformers: the attention block is a transformer, and its depth is a choice.
        projects_text: text states are projected before attention, and may also be pooled into the
            conditioning vector. Otherwise attention takes them as they are.
        middle_attends: the layer between the way down and the way up attends, whether or not the
            coarsest level does.
        embeds_sizes: a pooled text, which comes before the text states, and the size of the picture
            enter the conditioning vector.
    """

    modulation: str
    attention: Callable[["Blocks", int, int, str], nn.Module]
    resize: Callable[["Blocks", int, str, str], nn.Module]
    has_transformers: bool
    projects_text: bool
    middle_attends: bool
    embeds_sizes: bool = False


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Makes the blocks of one U-Net, which share these settings.

    Attributes:
        scanned: `nn.scan` repeats the layer of these blocks.

    All other attributes are those of `stunet.nn.stunet.STUNet`.
    """

    family: str
    groups: int
    text_groups: int
    head_channels: int
    heads: int
    flash_attention: bool
    text_only_attention: bool
    temporal_attention_blocks: int
    activation: str
    residual_divisor: float
    remat: str
    dtype: DTypeLike
    param_dtype: DTypeLike
    scanned: bool = False

    def make(self, block: type[nn.Module], **fields: Any) -> nn.Module:
        """Makes a block that is rematerialised by itself."""
        # Inside a scan the compiler cannot merge the two computations of a block anyway.
        block = rematerialised(block, self.remat, prevent_cse=not self.scanned)
        return block(dtype=self.dtype, param_dtype=self.param_dtype, **fields)

    def resnet(self, features: int, name: str, resample: str = "none") -> nn.Module:
        """Makes a residual block, which may resize."""
        return self.make(
            ResnetBlock,
            features=features,
            groups=self.groups,
            activation=self.activation,
            modulation=FAMILIES[self.family].modulation,
            resample=resample,
            residual_divisor=self.residual_divisor,
            name=name,
        )

    def attention(self, features: int, depth: int, name: str) -> nn.Module:
        """Makes the block that attends to pixels and text. Only transformers have a depth."""
        return FAMILIES[self.family].attention(self, features, depth, name)

    def resize(self, features: int, resample: str, name: str) -> nn.Module:
        """Makes the block that halves ("down") or doubles ("up") rows and columns."""
        return FAMILIES[self.family].resize(self, features, resample, name)

    def inflation(self, features: int, kind: str) -> list[nn.Module]:
        """Makes the blocks over time that end a layer: "conv", "attention" or "none"."""
        if kind == "conv":
            fields = dict(groups=self.groups, activation=self.activation, name="temporal")
            return [self.make(ConvInflation, **fields)]
        count = self.temporal_attention_blocks if kind == "attention" else 0
        fields = dict(head_channels=self.head_width(features), groups=self.groups)
        return [self.make(TemporalAttention, **fields, name=f"temporal_{i}") for i in range(count)]

    def head_width(self, features: int) -> int:
        """Returns the features of one attention head where activations have `features` channels."""
        return features // self.heads if self.heads else self.head_channels


def _text_attention(of: Blocks, features: int, depth: int, name: str) -> nn.Module:
    return of.make(
        TextAttention,
        head_channels=of.head_width(features),
        groups=of.groups,
        text_groups=of.text_groups,
        flash=of.flash_attention,
        text_only=of.text_only_attention,
        name=name,
    )


def _transformer(linear: bool) -> Callable[[Blocks, int, int, str], nn.Module]:
    def make(of: Blocks, features: int, depth: int, name: str) -> nn.Module:
        # It rematerialises its blocks itself, since it may be deep.
        return SpatialTransformer(
            depth=depth,
            head_channels=of.head_width(features),
            groups=of.groups,
            linear=linear,
            flash=of.flash_attention,
            remat=of.remat,
            scanned=of.scanned,
            dtype=of.dtype,
            param_dtype=of.param_dtype,
            name=name,
        )

    return make


def _resizing_resnet(of: Blocks, features: int, resample: str, name: str) -> nn.Module:
    return of.resnet(features, name, resample)


def _resizing_conv(of: Blocks, features: int, resample: str, name: str) -> nn.Module:
    return of.make(ResizeConv, features=features, resample=resample, name=name)


_STABLE_DIFFUSION = Family(
    modulation="added",
    attention=_transformer(linear=False),
    resize=_resizing_conv,
    has_transformers=True,
    projects_text=False,
    middle_attends=True,
)

FAMILIES: dict[str, Family] = {
    # DeepFloyd IF, which has the blocks of Imagen (arXiv 2205.11487).
    "if": Family(
        modulation="scale_shift",
        attention=_text_attention,
        resize=_resizing_resnet,
        has_transformers=False,
        projects_text=True,
        middle_attends=False,
    ),
    # Stable Diffusion 1 (arXiv 2112.10752).
    "sd1": _STABLE_DIFFUSION,
    # Stable Diffusion 2 stores the projections of transformers as matrices.
    "sd2": dataclasses.replace(_STABLE_DIFFUSION, attention=_transformer(linear=True)),
    # Stable Diffusion XL (arXiv 2307.01952) does so too.
    "sdxl": dataclasses.replace(
        _STABLE_DIFFUSION, attention=_transformer(linear=True), embeds_sizes=True
    ),
}
