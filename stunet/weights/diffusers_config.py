"""Converts between diffusers' config.json of a U-Net of DeepFloyd IF's family and our configs.

The flags of diffusers' `UNet2DConditionModel` choose among many networks. Our network is the one
that IF uses, after Imagen: it has residual blocks that resize, and attention to pixels and to
projected text. A config.json with a flag for any other network is refused, and the error names the
flag. Otherwise its weights might fit, but the network would give different pictures.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stunet import configs
from stunet.diffusion.schedules import IDDPM_ANGLE
from stunet.errors import UserError
from stunet.nn.stunet import STUNet
from stunet.train.parts import Parts

CLASS = "UNet2DConditionModel"
# Blocks of levels that do not attend, and of those that do.
DOWN = ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D")
UP = ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")

# IF's steps are i = 0 .. 999, t = i / 999, at the angles (i + 9) / 1008 of a right one. The last
# would be pure noise: it has a thousandth of the signal of the one before instead.
TIME_SCALE = 999.0
_FIRST, _BEFORE_LAST = (math.pi / 2 * (i + 9) / 1008 for i in (0, 998))
_CLEAN = math.cos(IDDPM_ANGLE) ** 2
LOG_SNR_MAX = math.log(math.cos(_FIRST) ** 2 / (_CLEAN - math.cos(_FIRST) ** 2))
LOG_SNR_MIN = math.log(1e-3 * math.cos(_BEFORE_LAST) ** 2 / _CLEAN)
# Tokens of a caption, as IF's pipeline pads them.
TEXT_LENGTH = 77
# Pixels of IF's stages II and III to one of the stage before; config.json does not say it.
UPSCALE = 4

# Keys that are one of ours, which have the same values.
_SAME = {
    "act_fn": "model.activation",
    "attention_head_dim": "model.head_channels",
    "cross_attention_dim": "model.text_features",
    "encoder_hid_dim": "text.dim",
    "flip_sin_to_cos": "model.cosine_first",
    "freq_shift": "model.frequency_shift",
    "norm_num_groups": "model.groups",
    "only_cross_attention": "model.text_only_attention",
    "resnet_out_scale_factor": "model.residual_divisor",
}

# What our network is: the values that it can be, of which the first is written.
_FIXED: dict[str, tuple[Any, ...]] = {
    "addition_embed_type": (None, "text"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None, "timestep"),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": ("group_norm",),
    "dropout": (0.0,),
    "encoder_hid_dim_type": ("text_proj", None),
    "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
    "norm_eps": (1e-5,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("scale_shift",),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}

# What diffusers takes where a config.json, of an older version, does not have a key.
_DEFAULTS: dict[str, Any] = {
    **{key: values[0] for key, values in _FIXED.items()},
    "addition_embed_type_num_heads": 64,
    "cross_attention_norm": None,
    "encoder_hid_dim": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1.0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
}

# Keys that a network cannot be made without, and what they hold.
_NUMBERS = ("in_channels", "out_channels")
_LISTS = {"block_out_channels": int, "down_block_types": str, "up_block_types": str}
_NEEDED = (*_NUMBERS, *_LISTS, "act_fn", "attention_head_dim", "cross_attention_dim")
_NEEDED += ("layers_per_block", "sample_size")

# Keys that are about blocks of other networks, or about computing the same in another way.
_IRRELEVANT = (
    "addition_time_embed_dim",
    "downsample_padding",
    "dual_cross_attention",
    "projection_class_embeddings_input_dim",
    "reverse_transformer_layers_per_block",
    "transformer_layers_per_block",
    "upcast_attention",
    "use_linear_projection",
)


def to_stunet(
    found: Mapping[str, Any],
    place: str,
    frames: int | None = None,
    temporal_factors: Sequence[int] | None = None,
) -> configs.Experiment:
    """Returns the config of a network whose frozen spatial half a config.json describes.

    Stage I of IF becomes a text-to-video network. Stages II and III become super-resolution
    networks, with `upscale.factor` 4: their inputs include a low-resolution picture and its noise
    level (`class_embed_type` "timestep").

    Args:
        found: content of config.json.
        place: name of the file, for errors.
        frames: frames in each clip; None makes the U-Net alone, without temporal layers.
        temporal_factors: for each level, finest first, the factor by which the number of frames
            shrinks on the way into the level. None means 1 for the finest level and 2 otherwise.

    Raises:
        UserError: the U-Net is of another family, or config.json lacks a key or has an unknown one.
    """
    found = {key: value for key, value in found.items() if key != "_diffusers_version"}
    _check_family(found, place)
    found = _DEFAULTS | found
    _check_values(found, place)
    widths, (height, width) = found["block_out_channels"], found["sample_size"]
    layers = found["layers_per_block"]
    upscales = found["class_embed_type"] is not None
    channels = found["in_channels"] // (2 if upscales else 1)
    if temporal_factors is None:
        temporal_factors = [1] + [2] * (len(widths) - 1)
    raw: dict[str, Any] = {
        "freeze": "spatial" if frames else "none",
        "model": dict(
            channels=widths[0],
            channel_multipliers=[width / widths[0] for width in widths],
            attention_levels=[block == DOWN[1] for block in found["down_block_types"]],
            temporal=frames is not None,
            temporal_factors=temporal_factors,
            # Of the norm of text states: diffusers'.
            text_groups=32,
            text_pooling_heads=(
                found["addition_embed_type_num_heads"] if found["addition_embed_type"] else 0
            ),
            time_features=found["time_embedding_dim"] or 0,
            time_scale=TIME_SCALE,
            level_embedding=upscales,
            learned_variance=found["out_channels"] == 2 * channels,
            **(dict(layers=layers) if isinstance(layers, list) else dict(layers_per_level=layers)),
        ),
        "text": dict(max_length=TEXT_LENGTH),
        "diffusion": dict(
            schedule="iddpm",
            log_snr_min=LOG_SNR_MIN,
            log_snr_max=LOG_SNR_MAX,
            prediction="eps",
        ),
        "upscale": dict(factor=UPSCALE if upscales else 1),
        # The U-Net says nothing of data: `stunet train` asks for the path of records.
        "data": dict(
            source="clips", channels=channels, height=height, width=width, frames=frames or 1
        ),
    }
    for key, ours in _SAME.items():
        group, name = ours.split(".")
        raw[group][name] = found[key]
    try:
        return configs.resolve(raw)
    except UserError as error:
        raise UserError(f"{place} cannot be inflated so: {error}") from error


def to_diffusers(parts: Parts) -> dict[str, Any]:
    """Returns the content of the config.json with which diffusers makes a run's spatial network.

    Raises:
        UserError: diffusers' UNet2DConditionModel cannot represent this network.
    """
    network, clip = parts.denoiser.network, parts.denoiser.clip
    _check_expressible(network)
    values = configs.flatten(parts.config)
    layers, attends = network.layers_per_level, network.attention_levels
    size = [clip.height, clip.width]
    return {
        "_class_name": CLASS,
        **{key: choices[0] for key, choices in _FIXED.items()},
        **{key: values[ours] for key, ours in _SAME.items()},
        "addition_embed_type": "text" if network.text_pooling_heads else None,
        "addition_embed_type_num_heads": network.text_pooling_heads or 64,
        "block_out_channels": list(network.channels),
        "class_embed_type": "timestep" if network.level_embedding else None,
        "down_block_types": [DOWN[attend] for attend in attends],
        "in_channels": parts.denoiser.input_shape(1)[-1],
        "layers_per_block": layers[0] if len(set(layers)) == 1 else list(layers),
        "mid_block_only_cross_attention": network.text_only_attention,
        "mid_block_scale_factor": network.residual_divisor,
        "out_channels": network.out_channels,
        "sample_size": size[0] if len(set(size)) == 1 else size,
        "time_embedding_dim": network.time_features or None,
        "up_block_types": [UP[attend] for attend in reversed(attends)],
    }


def _check_family(found: Mapping[str, Any], place: str) -> None:
    """Checks that config.json is of DeepFloyd IF's family and has all keys that a network needs.

    Raises:
        UserError: config.json is of another family, lacks a key, or has an unknown one.
    """
    name = found.get("_class_name", CLASS)
    if name != CLASS:
        raise UserError(f"{place} is of a {name}; a {CLASS} of DeepFloyd IF's family is needed")
    for key in _NEEDED:
        if key not in found:
            raise UserError(f"{place} has no {key!r}, which the network's shape depends on")
    for key in _NUMBERS:
        _expect(isinstance(found[key], int), key, found, place, "it must be a whole number")
    for key, kind in _LISTS.items():
        is_list = isinstance(found[key], list) and found[key]
        is_list = is_list and all(isinstance(entry, kind) and entry for entry in found[key])
        _expect(is_list, key, found, place, "it must be a list with an entry for each level")
    attends = [block == DOWN[1] for block in found["down_block_types"]]
    down, up = [DOWN[a] for a in attends], [UP[a] for a in reversed(attends)]
    family = "a U-Net of another family, such as Stable Diffusion's; DeepFloyd IF's has"
    _expect(down == found["down_block_types"], "down_block_types", found, place, f"{family} {DOWN}")
    _expect(up == found["up_block_types"], "up_block_types", found, place, f"{family} here {up}")
    _expect(attends[-1], "down_block_types", found, place, f"{family} {DOWN[1]} at the end")
    known = {"_class_name", *_DEFAULTS, *_NEEDED, *_IRRELEVANT}
    for key in found.keys() - known:
        unused = found[key] is None or key.startswith("_")
        _expect(unused, key, found, place, "which is not known here, and may change the network")


def _check_values(found: dict[str, Any], place: str) -> None:
    """Checks the flags, and changes some values of `found` to one standard form.

    For instance, a list with the same entry for each level becomes that entry.

    Raises:
        UserError: a flag asks for a network of another family.
    """
    for key in ("attention_head_dim", "cross_attention_dim", "only_cross_attention"):
        if isinstance(found[key], list):
            same = len(set(found[key])) == 1
            _expect(same, key, found, place, "one value for all levels is needed")
            found[key] = found[key][0]
    if found["act_fn"] == "swish":
        found["act_fn"] = "silu"
    for key, values in _FIXED.items():
        choices = " or ".join(map(repr, values))
        _expect(found[key] in values, key, found, place, f"what can be read has {choices}")
    activation, middle = found["act_fn"], found["mid_block_only_cross_attention"]
    divisor, channels = found["resnet_out_scale_factor"], found["in_channels"]
    needs_text = found["encoder_hid_dim"] is not None
    _expect(needs_text, "encoder_hid_dim", found, place, "the width of text states is needed")
    if isinstance(found["sample_size"], int):
        found["sample_size"] = [found["sample_size"]] * 2
    is_size = isinstance(found["sample_size"], list) and len(found["sample_size"]) == 2
    _expect(is_size, "sample_size", found, place, "rows and columns of a picture are needed")
    # Once for all blocks, or in each of them.
    once = activation if found["resnet_skip_time_act"] else None
    _expect(
        found["time_embedding_act_fn"] == once,
        "time_embedding_act_fn",
        found,
        place,
        f"with resnet_skip_time_act {found['resnet_skip_time_act']!r} it must be {once!r}",
    )
    _expect(
        found["mid_block_scale_factor"] == divisor,
        "mid_block_scale_factor",
        found,
        place,
        f"it must be resnet_out_scale_factor, {divisor!r}",
    )
    _expect(
        middle in (None, found["only_cross_attention"]),
        "mid_block_only_cross_attention",
        found,
        place,
        f"it must be only_cross_attention, {found['only_cross_attention']!r}",
    )
    if found["class_embed_type"]:
        _expect(channels % 2 == 0, "in_channels", found, place, "two pictures are needed")
        channels //= 2
    _expect(
        found["out_channels"] in (channels, 2 * channels),
        "out_channels",
        found,
        place,
        f"a picture of {channels} channels is needed, or twice as many with a learned variance",
    )


def _expect(condition: Any, key: str, found: Mapping[str, Any], place: str, right: str) -> None:
    if not condition:
        raise UserError(f"{place} has {key!r} {found[key]!r}: {right}")


def _check_expressible(network: STUNet) -> None:
    problems = {
        f"model.patch_size is {network.patch_size}": network.patch_size != 1,
        "model.text_features is 0": not network.text_features,
        f"model.text_groups is {network.text_groups}": network.text_groups != 32,
        "the coarsest level does not attend": not network.attention_levels[-1],
    }
    for problem, is_so in problems.items():
        if is_so:
            raise UserError(
                f"{problem}, and diffusers' {CLASS} has no such network; export it in another "
                "format"
            )
