"""Translates what diffusers' config.json says of the U-Nets of each family into keys of our config.

The flags of diffusers' `UNet2DConditionModel` choose among many networks. Those of DeepFloyd IF's
family and of Stable Diffusion's are ours too (`stunet.nn.families`). Each has flags that must have
certain values. With others, the weights might fit, but the network would give different pictures.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from stunet.diffusion.schedules import IDDPM_ANGLE
from stunet.errors import UserError
from stunet.nn.stunet import STUNet

Found = Mapping[str, Any]
Keys = dict[str, dict[str, Any]]

# Steps of both families are i = 0 .. 999, at the noise times t = i / 999.
TIME_SCALE = 999.0
# Tokens of a caption, as the pipelines of both families pad them.
TEXT_LENGTH = 77

# IF's steps are at the angles (i + 9) / 1008 of a right one. The last would be pure noise: it has a
# thousandth of the signal of the one before instead.
_FIRST, _BEFORE_LAST = (math.pi / 2 * (i + 9) / 1008 for i in (0, 998))
_CLEAN = math.cos(IDDPM_ANGLE) ** 2
LOG_SNR_MAX = math.log(math.cos(_FIRST) ** 2 / (_CLEAN - math.cos(_FIRST) ** 2))
LOG_SNR_MIN = math.log(1e-3 * math.cos(_BEFORE_LAST) ** 2 / _CLEAN)
# Pixels of IF's stages II and III to one of the stage before; config.json does not say it.
UPSCALE = 4
# Sizes that Stable Diffusion XL's U-Net is told: rows and columns of the original picture, where
# the crop begins, and rows and columns after cropping.
_SIZES = 6
# Folder of the autoencoder in Stable Diffusion's pipelines, and pixels to one of its latents.
AUTOENCODER, FACTOR = "vae", 8


@dataclasses.dataclass(frozen=True)
class Form:
    """Describes the config.json of the U-Nets of one family.

    Attributes:
        name: name of the family, for errors.
        families: keys of `stunet.nn.families.FAMILIES` that have this form.
        down: types of the blocks on the way down: of levels that do not attend, and that do.
        up: types of the blocks on the way up, in the same order.
        fixed: the values that a key can have; the first one is written.
        check: takes the content of config.json and the place of the file, and raises an error if
            values of several keys do not fit together.
        keys: turns the content of config.json and the path of the file into keys of our config,
            beside those that all families share.
        flags: turns a network into keys of config.json, beside those that all families share.
        lacks: takes a network, and says for each thing that diffusers cannot represent whether the
            network has it.
    """

    name: str
    families: tuple[str, ...]
    down: tuple[str, str]
    up: tuple[str, str]
    fixed: Mapping[str, tuple[Any, ...]]
    check: Callable[[Found, str], None]
    keys: Callable[[Found, str], Keys]
    flags: Callable[[STUNet, int], dict[str, Any]]
    lacks: Callable[[STUNet], dict[str, bool]]


def pooled_text_features(found: Found) -> int:
    """Returns the width of the pooled text that a U-Net of Stable Diffusion XL takes.

    It is 0 if config.json, whose content is `found`, does not say it.
    """
    keys = "projection_class_embeddings_input_dim", "addition_time_embed_dim"
    both, code = (found.get(key) for key in keys)
    return both - _SIZES * code if type(both) is type(code) is int else 0


def expect(condition: Any, key: str, found: Found, place: str, right: str) -> None:
    """Checks a condition on one key of config.json.

    Raises:
        UserError: the condition does not hold. The sentence ends with `right`.
    """
    if not condition:
        raise UserError(f"{place} has {key!r} {found[key]!r}: {right}")


def _check_if(found: Found, place: str) -> None:
    two = not found["class_embed_type"] or found["in_channels"] % 2 == 0
    expect(two, "in_channels", found, place, "two pictures are needed")
    activation, middle = found["act_fn"], found["mid_block_only_cross_attention"]
    divisor = found["resnet_out_scale_factor"]
    needs_text = found["encoder_hid_dim"] is not None
    expect(needs_text, "encoder_hid_dim", found, place, "the width of text states is needed")
    _expect_one_for_all("attention_head_dim", found, place)
    _expect_one_for_all("only_cross_attention", found, place)
    # Once for all blocks, or in each of them.
    once = activation if found["resnet_skip_time_act"] else None
    expect(
        found["time_embedding_act_fn"] == once,
        "time_embedding_act_fn",
        found,
        place,
        f"with resnet_skip_time_act {found['resnet_skip_time_act']!r} it must be {once!r}",
    )
    expect(
        found["mid_block_scale_factor"] == divisor,
        "mid_block_scale_factor",
        found,
        place,
        f"it must be resnet_out_scale_factor, {divisor!r}",
    )
    expect(
        middle in (None, found["only_cross_attention"]),
        "mid_block_only_cross_attention",
        found,
        place,
        f"it must be only_cross_attention, {found['only_cross_attention']!r}",
    )


def _if_keys(found: Found, place: str) -> Keys:
    upscales = found["class_embed_type"] is not None
    return {
        "model": dict(
            family="if",
            head_channels=_one(found["attention_head_dim"]),
            text_features=found["cross_attention_dim"],
            text_only_attention=_one(found["only_cross_attention"]),
            # Of the norm of text states: diffusers'.
            text_groups=32,
            text_pooling_heads=(
                found["addition_embed_type_num_heads"] if found["addition_embed_type"] else 0
            ),
            level_embedding=upscales,
        ),
        "text": dict(dim=found["encoder_hid_dim"]),
        "diffusion": dict(
            schedule="iddpm",
            log_snr_min=LOG_SNR_MIN,
            log_snr_max=LOG_SNR_MAX,
            prediction="eps",
        ),
        "upscale": dict(factor=UPSCALE if upscales else 1),
        "data": dict(channels=found["in_channels"] // (2 if upscales else 1)),
    }


def _if_flags(network: STUNet, text_dim: int) -> dict[str, Any]:
    return {
        "addition_embed_type": "text" if network.text_pooling_heads else None,
        "addition_embed_type_num_heads": network.text_pooling_heads or 64,
        "attention_head_dim": network.head_channels,
        "class_embed_type": "timestep" if network.level_embedding else None,
        "encoder_hid_dim": text_dim,
        "mid_block_only_cross_attention": network.text_only_attention,
        "mid_block_scale_factor": network.residual_divisor,
        "only_cross_attention": network.text_only_attention,
    }


def _if_lacks(network: STUNet) -> dict[str, bool]:
    return {
        f"model.heads is {network.heads}": network.heads > 0,
        f"model.text_groups is {network.text_groups}": network.text_groups != 32,
        "the coarsest level does not attend": not network.attention_levels[-1],
    }


def _check_sd(found: Found, place: str) -> None:
    depths, heads = found["transformer_layers_per_block"], found["attention_head_dim"]
    widths = found["block_out_channels"]
    expect(
        found["in_channels"] == found["out_channels"],
        "in_channels",
        found,
        place,
        f"it must be out_channels, {found['out_channels']!r}; a U-Net that is also given another "
        "picture, as for inpainting, cannot be read",
    )
    expect(
        _is_for_levels(depths, widths),
        "transformer_layers_per_block",
        found,
        place,
        "a whole number, or one for each level, is needed",
    )
    key = "attention_head_dim"
    expect(_is_for_levels(heads, widths), key, found, place, "whole numbers of heads are needed")
    if found["addition_embed_type"]:
        _check_sdxl(found, place)
    heads = _for_levels(heads, widths)
    head_widths = {width / count for width, count in zip(widths, heads, strict=True)}
    expect(
        len(set(heads)) == 1 or (len(head_widths) == 1 and widths[0] % heads[0] == 0),
        key,
        found,
        place,
        "all levels must have as many heads (as this key, in spite of its name, counts them), or "
        "heads of the same width",
    )


def _check_sdxl(found: Found, place: str) -> None:
    linear, activation = found["use_linear_projection"], found["act_fn"]
    expect(linear is True, "use_linear_projection", found, place, "Stable Diffusion XL has True")
    # The layers for the pooled text and the sizes always have this activation.
    expect(activation == "silu", "act_fn", found, place, "Stable Diffusion XL has 'silu'")
    code, key = found["addition_time_embed_dim"], "addition_time_embed_dim"
    is_even = type(code) is int and code > 0 and code % 2 == 0
    expect(is_even, key, found, place, "the width of each size's code, an even number, is needed")
    expect(
        0 < pooled_text_features(found) <= found["cross_attention_dim"],
        "projection_class_embeddings_input_dim",
        found,
        place,
        f"the width of the pooled text and of {_SIZES} sizes, at {code} each, is needed; the "
        "refiner of Stable Diffusion XL, which has 5, cannot be read",
    )


def _sd_keys(found: Found, place: str) -> Keys:
    widths = found["block_out_channels"]
    # The other parts lie beside the U-Net, as in diffusers' pipelines.
    pipeline = pathlib.Path(place).parent.parent
    embeds_sizes = found["addition_embed_type"] is not None
    family = "sdxl" if embeds_sizes else "sd2" if found["use_linear_projection"] else "sd1"
    added: Keys = {"model": {}, "text": {}}
    if embeds_sizes:
        added["model"] = dict(
            size_features=found["addition_time_embed_dim"],
            pooled_text_features=pooled_text_features(found),
        )
        added["text"] = dict(encoder=f"{family}:{pipeline}")
    depths = _for_levels(found["transformer_layers_per_block"], widths)
    heads = _for_levels(found["attention_head_dim"], widths)
    equal = len(set(heads)) == 1
    return {
        "model": dict(
            family=family,
            heads=heads[0] if equal else 0,
            # Not used if there are as many heads in each level.
            head_channels=64 if equal else widths[0] // heads[0],
            transformer_layers=() if set(depths) == {1} else depths,
            text_features=found["cross_attention_dim"],
            text_pooling_heads=0,
            **added["model"],
        ),
        "text": dict(dim=found["cross_attention_dim"], **added["text"]),
        "autoencoder": dict(
            path=str(pipeline / AUTOENCODER), channels=found["in_channels"], factor=FACTOR
        ),
        "diffusion": dict(schedule="scaled_linear", prediction="eps"),
        "sample": dict(threshold="none"),
        "data": dict(channels=3),
    }


def _sd_flags(network: STUNet, text_dim: int) -> dict[str, Any]:
    # Heads per level, in spite of its name: "a naming issue", as diffusers' source says.
    heads = network.heads or [max(1, width // network.head_channels) for width in network.channels]
    flags: dict[str, Any] = {}
    if network.family == "sdxl":
        both = network.pooled_text_features + _SIZES * network.size_features
        flags = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": network.size_features,
            "projection_class_embeddings_input_dim": both,
        }
    return {
        **flags,
        "attention_head_dim": heads,
        "transformer_layers_per_block": list(network.transformer_layers) or 1,
        "use_linear_projection": network.family != "sd1",
        # What Stable Diffusion 2 needs in float16; it changes nothing in float32.
        "upcast_attention": network.family == "sd2",
    }


def _sd_lacks(network: STUNet) -> dict[str, bool]:
    return {
        f"model.residual_divisor is {network.residual_divisor}": network.residual_divisor != 1,
        "model.level_embedding is True": network.level_embedding,
    }


def _expect_one_for_all(key: str, found: Found, place: str) -> None:
    value = found[key]
    same = not isinstance(value, list) or len(set(value)) == 1
    expect(same, key, found, place, "one value for all levels is needed")


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _is_for_levels(value: Any, widths: list[int]) -> bool:
    """Tells whether a value is a whole number above 0, or a list of one for each level."""
    values = value if isinstance(value, list) else [value] * len(widths)
    is_count = all(type(entry) is int and entry > 0 for entry in values)
    return is_count and len(values) == len(widths)


def _for_levels(value: Any, widths: list[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * len(widths)


FORMS = (
    Form(
        name="DeepFloyd IF",
        families=("if",),
        down=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
        fixed={
            "addition_embed_type": (None, "text"),
            "class_embed_type": (None, "timestep"),
            "cross_attention_norm": ("group_norm",),
            "encoder_hid_dim_type": ("text_proj", None),
            "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
            "resnet_time_scale_shift": ("scale_shift",),
        },
        check=_check_if,
        keys=_if_keys,
        flags=_if_flags,
        lacks=_if_lacks,
    ),
    Form(
        name="Stable Diffusion",
        families=("sd1", "sd2", "sdxl"),
        down=("DownBlock2D", "CrossAttnDownBlock2D"),
        up=("UpBlock2D", "CrossAttnUpBlock2D"),
        fixed={
            "addition_embed_type": (None, "text_time"),
            "class_embed_type": (None,),
            "cross_attention_norm": (None,),
            "downsample_padding": (1,),
            "dual_cross_attention": (False,),
            "encoder_hid_dim": (None,),
            "encoder_hid_dim_type": (None,),
            "mid_block_only_cross_attention": (None, False),
            "mid_block_scale_factor": (1.0,),
            "mid_block_type": ("UNetMidBlock2DCrossAttn",),
            "only_cross_attention": (False,),
            "resnet_out_scale_factor": (1.0,),
            "resnet_skip_time_act": (False,),
            "resnet_time_scale_shift": ("default",),
            "reverse_transformer_layers_per_block": (None,),
            "time_embedding_act_fn": (None,),
        },
        check=_check_sd,
        keys=_sd_keys,
        flags=_sd_flags,
        lacks=_sd_lacks,
    ),
)
