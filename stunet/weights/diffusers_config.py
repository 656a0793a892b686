"""Converts between diffusers' config.json of a U-Net and our configs.

A config.json with a flag for a network that ours is not is refused, and the error names the flag.
`stunet.weights.diffusers_families` says which flags a family has.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from stunet import configs
from stunet.errors import UserError
from stunet.nn.families import FAMILIES
from stunet.train.parts import Parts
from stunet.weights.diffusers_families import FORMS, TEXT_LENGTH, TIME_SCALE, Form, expect

CLASS = "UNet2DConditionModel"

# Keys of all families that are one of ours, which have the same values.
_SAME = {
    "act_fn": "model.activation",
    "cross_attention_dim": "model.text_features",
    "flip_sin_to_cos": "model.cosine_first",
    "freq_shift": "model.frequency_shift",
    "norm_num_groups": "model.groups",
    "resnet_out_scale_factor": "model.residual_divisor",
}

# What all networks of ours are: the values that a key can have, of which the first is written.
_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "dropout": (0.0,),
    "norm_eps": (1e-5,),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}

# What diffusers takes where a config.json, of an older version, does not have a key.
_DEFAULTS: dict[str, Any] = {
    **{key: values[0] for key, values in _FIXED.items()},
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "class_embed_type": None,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1.0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}

# Keys that a network cannot be made without, and what they hold.
_NUMBERS = ("in_channels", "out_channels")
_LISTS = {"block_out_channels": int, "down_block_types": str, "up_block_types": str}
_NEEDED = (*_NUMBERS, *_LISTS, "act_fn", "attention_head_dim", "cross_attention_dim")
_NEEDED += ("layers_per_block", "sample_size")

# Keys that are about computing the same in another way.
_IRRELEVANT = ("upcast_attention",)


def to_stunet(
    found: Mapping[str, Any],
    place: str,
    frames: int | None = None,
    temporal_factors: Sequence[int] | None = None,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> configs.Experiment:
    """Returns the config of a network whose frozen spatial half a config.json describes.

    Stage I of IF becomes a text-to-video network. Stages II and III become super-resolution
    networks, with `upscale.factor` 4: their inputs include a low-resolution picture and its noise
    level (`class_embed_type` "timestep"). Stable Diffusion's U-Net becomes a text-to-video network
    on the latents of the autoencoder that lies beside it in the pipeline, in the directory "vae".

    Args:
        found: content of config.json.
        place: path of the file, for errors and for the path of the autoencoder.
        frames: frames in each clip; None makes the U-Net alone, without temporal layers.
        temporal_factors: for each level, finest first, the factor by which the number of frames
            shrinks on the way into the level. None means 1 for the finest level and 2 otherwise.
        more: further keys of the config, by group, which the other parts of a pipeline determine.

    Raises:
        UserError: the U-Net is of another family, or config.json lacks a key or has an unknown one.
    """
    found = {key: value for key, value in found.items() if key != "_diffusers_version"}
    form = _form(found, place)
    found = _DEFAULTS | copy.deepcopy(found)
    _check_values(found, form, place)
    widths, (height, width) = found["block_out_channels"], found["sample_size"]
    layers = found["layers_per_block"]
    if temporal_factors is None:
        temporal_factors = [1] + [2] * (len(widths) - 1)
    raw: dict[str, Any] = {
        "freeze": "spatial" if frames else "none",
        "model": dict(
            channels=widths[0],
            channel_multipliers=[width / widths[0] for width in widths],
            attention_levels=[block == form.down[1] for block in found["down_block_types"]],
            temporal=frames is not None,
            temporal_factors=temporal_factors,
            time_features=found["time_embedding_dim"] or 0,
            time_scale=TIME_SCALE,
            **(dict(layers=layers) if isinstance(layers, list) else dict(layers_per_level=layers)),
        ),
        "text": dict(max_length=TEXT_LENGTH),
        # The U-Net says nothing of data: `stunet train` asks for the path of records.
        "data": dict(source="clips", frames=frames or 1),
    }
    for key, ours in _SAME.items():
        group, name = ours.split(".")
        raw[group][name] = found[key]
    for keys in (form.keys(found, place), more or {}):
        for group, values in keys.items():
            raw[group] = raw.get(group, {}) | dict(values)
    latents = raw.get("autoencoder", {})
    factor = latents.get("factor", 1)
    raw["data"] |= dict(height=factor * height, width=factor * width)
    channels = latents.get("channels", raw["data"]["channels"])
    raw["model"]["learned_variance"] = found["out_channels"] == 2 * channels
    expect(
        found["out_channels"] in (channels, 2 * channels),
        "out_channels",
        found,
        place,
        f"a picture of {channels} channels is needed, or twice as many with a learned variance",
    )
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
    form = next(form for form in FORMS if network.family in form.families)
    problems = {
        f"model.patch_size is {network.patch_size}": network.patch_size != 1,
        "model.text_features is 0": not network.text_features,
        **form.lacks(network),
    }
    for problem, is_so in problems.items():
        if is_so:
            raise UserError(
                f"{problem}, and diffusers' {CLASS} has no such network; export it in another "
                "format, or take a run as `stunet inflate` makes it"
            )
    values = configs.flatten(parts.config)
    layers, attends = network.layers_per_level, network.attention_levels
    size = [clip.height, clip.width]
    return {
        "_class_name": CLASS,
        **{key: choices[0] for key, choices in (_FIXED | form.fixed).items()},
        **{key: values[ours] for key, ours in _SAME.items()},
        "block_out_channels": list(network.channels),
        "down_block_types": [form.down[attend] for attend in attends],
        "in_channels": parts.denoiser.input_shape(1)[-1],
        "layers_per_block": layers[0] if len(set(layers)) == 1 else list(layers),
        "out_channels": network.out_channels,
        "sample_size": size[0] if len(set(size)) == 1 else size,
        "time_embedding_dim": network.time_features or None,
        "up_block_types": [form.up[attend] for attend in reversed(attends)],
        **form.flags(network, parts.denoiser.text.dim),
    }


def _form(found: Mapping[str, Any], place: str) -> Form:
    """Returns the form of the U-Net's family.

    Raises:
        UserError: config.json is of another family, lacks a key, or has an unknown one.
    """
    name = found.get("_class_name", CLASS)
    if name != CLASS:
        names = " or ".join(form.name for form in FORMS)
        raise UserError(f"{place} is of a {name}; a {CLASS} of the family of {names} is needed")
    for key in _NEEDED:
        if key not in found:
            raise UserError(f"{place} has no {key!r}, which the network's shape depends on")
    for key in _NUMBERS:
        expect(isinstance(found[key], int), key, found, place, "it must be a whole number")
    for key, kind in _LISTS.items():
        is_list = isinstance(found[key], list) and found[key]
        is_list = is_list and all(isinstance(entry, kind) and entry for entry in found[key])
        expect(is_list, key, found, place, "it must be a list with an entry for each level")
    blocks = found["down_block_types"]
    form = next((form for form in FORMS if set(blocks) <= set(form.down)), None)
    if form is None:
        known = "; ".join(f"{form.name}'s has {' and '.join(form.down)}" for form in FORMS)
        expect(False, "down_block_types", found, place, f"a U-Net of another family; {known}")
    attends = [block == form.down[1] for block in blocks]
    up = [form.up[attend] for attend in reversed(attends)]
    right = f"{form.name}'s family has here {up}"
    expect(up == found["up_block_types"], "up_block_types", found, place, right)
    ends_right = attends[-1] or FAMILIES[form.families[0]].middle_attends
    right = f"{form.name}'s family has {form.down[1]} at the end"
    expect(ends_right, "down_block_types", found, place, right)
    known = {"_class_name", *_DEFAULTS, *_NEEDED, *_IRRELEVANT}
    for key in found.keys() - known:
        unused = found[key] is None or key.startswith("_")
        expect(unused, key, found, place, "which is not known here, and may change the network")
    return form


def _check_values(found: dict[str, Any], form: Form, place: str) -> None:
    """Checks the flags, and changes some values of `found` to one standard form.

    For instance, one number for rows and columns becomes a list of two.

    Raises:
        UserError: a flag asks for a network that ours is not.
    """
    if isinstance(found["cross_attention_dim"], list):
        same = len(set(found["cross_attention_dim"])) == 1
        expect(same, "cross_attention_dim", found, place, "one value for all levels is needed")
        found["cross_attention_dim"] = found["cross_attention_dim"][0]
    if found["act_fn"] == "swish":
        found["act_fn"] = "silu"
    for key, values in (_FIXED | form.fixed).items():
        choices = " or ".join(map(repr, values))
        right = f"what can be read, of the family of {form.name}, has {choices}"
        expect(found[key] in values, key, found, place, right)
    if isinstance(found["sample_size"], int):
        found["sample_size"] = [found["sample_size"]] * 2
    is_size = isinstance(found["sample_size"], list) and len(found["sample_size"]) == 2
    is_size = is_size and all(isinstance(n, int) for n in found["sample_size"])
    expect(is_size, "sample_size", found, place, "rows and columns of a picture are needed")
    form.check(found, place)
