"""The shape of the network: its levels, features and layers fit together and into the clip."""

import math

from stunet.configs import text_encoders
from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.schema import Config, level_channels


def levels(config: Config) -> Mistakes:
    """Checks that each list in `config.model` has one allowed value for each level of the U-Net."""
    model = config.model
    levels = len(model.channel_multipliers)
    if levels < 1:
        yield "model.channel_multipliers is empty; give one multiple for each level"
    optional = (key for key in ("layers", "transformer_layers") if getattr(model, key))
    for key in ("attention_levels", "temporal_factors", *optional):
        count = len(getattr(model, key))
        if count != levels:
            yield (
                f"model.{key} has {count} entries and model.channel_multipliers {levels}; both "
                "need one for each level"
            )
    if model.temporal_factors[0] != 1 or min(model.temporal_factors) < 1:
        yield (
            f"model.temporal_factors is {model.temporal_factors}; the first level keeps every "
            "frame, so it begins with 1, and no factor is below 1"
        )
    if model.layers and min(model.layers) < 1:
        yield f"model.layers is {model.layers}; each level needs at least one layer"
    if model.transformer_layers and min(model.transformer_layers) < 1:
        yield (
            f"model.transformer_layers is {model.transformer_layers}; each transformer needs at "
            "least one layer: where there is to be none, set model.attention_levels to False"
        )


def family(config: Config) -> Mistakes:
    """Checks that keys of one family of U-Nets are left alone where there is another family."""
    model = config.model
    family = f"model.family is {model.family!r}"
    if model.family == "if":
        if model.empty_text_tokens:
            yield (
                f"{family} and model.empty_text_tokens {model.empty_text_tokens}, which only 'sd1' "
                "and 'sd2' have; set model.empty_text_tokens to 0"
            )
        if model.transformer_layers:
            yield (
                f"{family} and model.transformer_layers {model.transformer_layers}; that family "
                "has no transformers: set model.transformer_layers to (), or choose the family "
                "'sd1', 'sd2' or 'sdxl'"
            )
        return
    tokens = model.empty_text_tokens
    if tokens and (model.family == "sdxl" or not model.text_features):
        yield (
            f"{family} and model.empty_text_tokens {tokens}, which only 'sd1' and 'sd2' with text "
            "have; set model.empty_text_tokens to 0"
        )
    if tokens not in (0, config.text.max_length):
        yield (
            f"model.empty_text_tokens is {tokens}, and captions have {config.text.max_length} "
            "tokens (text.max_length); set both to the same number"
        )
    if model.text_features not in (0, config.text.dim):
        yield (
            f"{family} and model.text_features {model.text_features}; that family attends to text "
            f"states as they are: set model.text_features to text.dim, which is {config.text.dim}"
        )
    for key, off in (("text_pooling_heads", 0), ("text_only_attention", False)):
        value = getattr(model, key)
        if value and model.text_features:
            yield f"{family} and model.{key} {value}, which only 'if' has; set model.{key} to {off}"


def pooled_text(config: Config) -> Mistakes:
    """Checks that the network takes pooled text if its family does, and that there is some."""
    model, text = config.model, config.text
    family, width = f"model.family is {model.family!r}", model.pooled_text_features
    if model.family != "sdxl" or not model.text_features:
        if width:
            yield (
                f"{family} and model.pooled_text_features {width}, which only 'sdxl' with text "
                "has; set model.pooled_text_features to 0"
            )
        return
    if not 0 < width <= text.dim:
        yield (
            f"{family} and model.pooled_text_features {width}; it must be the width of the pooled "
            f"text, from 1 to text.dim, which is {text.dim}: 1280 for Stable Diffusion XL"
        )
    if not text_encoders.pools(text.encoder):
        yield (
            f"{family} and text.encoder {text.encoder!r}, which gives no pooled text; set "
            "text.encoder to 'sdxl:DIR'"
        )
    yield from divides(model.size_features, "model.size_features", 2, "sines and cosines")


def attention(config: Config) -> Mistakes:
    model = config.model
    if model.text_only_attention and not model.text_features:
        yield (
            "model.text_only_attention is True and model.text_features 0, which leaves nothing to "
            "attend to; give text_features, or set text_only_attention to False"
        )


def level_embedding(config: Config) -> Mistakes:
    if config.model.level_embedding and config.upscale.factor == 1:
        yield (
            "model.level_embedding is True and upscale.factor is 1, so there is no low-resolution "
            "clip whose augmentation level could be embedded; set model.level_embedding to False, "
            "or upscale.factor above 1"
        )


def frozen_weights(config: Config) -> Mistakes:
    """Checks that some weights are trained, and that `freeze` is "none" if there are adapters."""
    if config.freeze == "spatial" and not config.model.temporal:
        yield (
            "freeze is 'spatial' and model.temporal is False, which leaves nothing to train; "
            "set freeze to 'none'"
        )
    elif config.freeze == "spatial" and config.data.frames == 1:
        yield (
            "freeze is 'spatial' and data.frames is 1; pictures pass through the spatial layers "
            "alone, which leaves nothing to train: set freeze to 'none'"
        )
    if config.lora.rank and config.freeze != "none":
        yield (
            f"lora.rank is {config.lora.rank} and freeze is {config.freeze!r}; adapters already "
            "freeze every other weight: set freeze to 'none', or lora.rank to 0"
        )


def resolution(config: Config) -> Mistakes:
    """Checks that height and width are whole numbers of pixels at every level."""
    total = config.model.patch_size * 2 ** (len(config.model.channel_multipliers) - 1)
    why = "model.patch_size and a halving for each level"
    if features := config.autoencoder.level_features:
        total, why = 2 ** (len(features) - 1), "a halving for each of autoencoder.level_features"
    elif config.autoencoder.path:
        total, why = total * config.autoencoder.factor, f"autoencoder.factor, {why}"
    for key in ("height", "width"):
        size, name = getattr(config.data, key), f"data.{key}"
        yield from divides(size, name, total, why)
        yield from divides(size, name, config.upscale.factor, "upscale.factor")


def features(config: Config) -> Mistakes:
    """Checks that normalisation groups and attention heads divide the numbers of features."""
    model = config.model
    levels = len(model.channel_multipliers)
    for level, (multiple, channels) in enumerate(
        zip(model.channel_multipliers, level_channels(model), strict=True)
    ):
        name = f"model.channels * channel_multipliers[{level}]"
        if channels < 1 or not math.isclose(channels, model.channels * multiple):
            yield f"{name} is {model.channels * multiple}; it must be a whole number"
        yield from divides(channels, name, model.groups, "model.groups")
        # The coarsest level always attends: over time, and in a network without time over text.
        if model.attention_levels[level] or level == levels - 1:
            key = "heads" if model.heads else "head_channels"
            yield from divides(channels, name, getattr(model, key), f"model.{key}")
    turned = "rotary positions turn pairs of features"
    if model.heads:
        width = channels // model.heads
        yield from divides(width, f"the coarsest level's {channels} / model.heads", 2, turned)
    else:
        yield from divides(model.head_channels, "model.head_channels", 2, turned)
    if model.text_features and model.family == "if":
        yield from divides(
            model.text_features, "model.text_features", model.text_groups, "model.text_groups"
        )
    if model.text_features and model.text_pooling_heads:
        heads = model.text_pooling_heads
        yield from divides(config.text.dim, "text.dim", heads, "model.text_pooling_heads")
