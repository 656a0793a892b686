"""Checks that values of several keys fit together, for example that one divides another.

Each check is a generator that takes the config and yields a sentence for each mistake. The sentence
says what is wrong and what would be right. To add a check, write a generator and add it to
`_CHECKS`.
"""

import contextlib
import dataclasses
import math
import operator
from collections.abc import Callable, Iterator

from stunet import extensions
from stunet.configs import text_encoders
from stunet.configs.schema import (
    BETA_SCHEDULES,
    MAIN,
    Config,
    Data,
    all_sources,
    clip_span,
    fields,
    level_channels,
    shape,
)
from stunet.errors import UserError

Mistakes = Iterator[str]

# Smallest share of a source that is not 0. `stunet.data.turns` rounds smaller ones.
LEAST_SHARE = 1e-4


def check_combinations(config: Config) -> None:
    """Checks the keys whose values must fit together.

    Raises:
        UserError: values do not fit together. The sentence names the first mistake and what
            would be right.
    """
    for check in _CHECKS:
        for mistake in check(config):
            raise UserError(mistake)


def check_data(config: Config) -> None:
    """Checks that a config names its data.

    A config that `stunet inflate` wrote may name no data yet, and `stunet plan` needs no data.
    Training and evaluation need data.

    Raises:
        UserError: a source is "clips", and its path is empty.
    """
    for name, data in all_sources(config.data).items():
        with about_source(name):
            check_data_path(data.source, data.path)


@contextlib.contextmanager
def about_source(name: str) -> Iterator[None]:
    """Context manager that puts the name of a source of `data.mix` before each message.

    Messages about the main source, which `data` itself describes, stay as they are.
    """
    try:
        yield
    except UserError as error:
        if name == MAIN:
            raise
        raise UserError(f"data.mix.{name}: {error}") from error


def check_data_path(source: str, path: str) -> None:
    """Checks that a source of stored clips has a path.

    Raises:
        UserError: `source` is "clips", and `path` is empty.
    """
    if source == "clips" and not path:
        raise UserError(
            "data.source is 'clips', and data.path is empty; name the directory of the records, "
            "for example with --config.data.path=runs/clips"
        )


def _levels(config: Config) -> Mistakes:
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


def _family(config: Config) -> Mistakes:
    """Checks that keys of one family of U-Nets are left alone where there is another family."""
    model = config.model
    family = f"model.family is {model.family!r}"
    yield from _pooled_text(config, family)
    if model.family == "if":
        if model.transformer_layers:
            yield (
                f"{family} and model.transformer_layers {model.transformer_layers}; that family "
                "has no transformers: set model.transformer_layers to (), or choose the family "
                "'sd1', 'sd2' or 'sdxl'"
            )
        return
    if model.text_features not in (0, config.text.dim):
        yield (
            f"{family} and model.text_features {model.text_features}; that family attends to text "
            f"states as they are: set model.text_features to text.dim, which is {config.text.dim}"
        )
    for key, off in (("text_pooling_heads", 0), ("text_only_attention", False)):
        value = getattr(model, key)
        if value and model.text_features:
            yield f"{family} and model.{key} {value}, which only 'if' has; set model.{key} to {off}"


def _pooled_text(config: Config, family: str) -> Mistakes:
    """Checks that the network takes pooled text if its family does, and that there is some."""
    model, text = config.model, config.text
    width = model.pooled_text_features
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
    if model.size_features % 2:
        yield f"model.size_features is {model.size_features}; it must be even"


def _attention(config: Config) -> Mistakes:
    model = config.model
    if model.text_only_attention and not model.text_features:
        yield (
            "model.text_only_attention is True and model.text_features 0, which leaves nothing to "
            "attend to; give text_features, or set text_only_attention to False"
        )


def _level_embedding(config: Config) -> Mistakes:
    if config.model.level_embedding and config.upscale.factor == 1:
        yield (
            "model.level_embedding is True and upscale.factor is 1, so there is no low-resolution "
            "clip whose augmentation level could be embedded; set model.level_embedding to False, "
            "or upscale.factor above 1"
        )


def _frozen_weights(config: Config) -> Mistakes:
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


def _frames(config: Config) -> Mistakes:
    """Checks that the number of frames suits the network, the keyframes and the source."""
    model, data, stride = config.model, config.data, config.tsr.stride
    # Clips of one frame pass through the spatial layers alone.
    if model.temporal and data.frames > 1 and not config.autoencoder.level_features:
        total = math.prod(model.temporal_factors)
        yield from _divides(
            data.frames, "data.frames", total, "the product of model.temporal_factors"
        )
    if stride > 1 and (data.frames == 1 or (data.frames - 1) % stride):
        yield (
            f"data.frames is {data.frames} and tsr.stride {stride}; the first and the last frame "
            f"of a clip are keyframes, {_keyframe_remedy(config)}"
        )
    if data.cut_from and data.cut_from < clip_span(data):
        yield (
            f"data.cut_from is {data.cut_from}, and a clip of {data.frames} frames at data.stride "
            f"{data.stride} spans {clip_span(data)} frames of the source; set data.cut_from to "
            f"{clip_span(data)} or more, or to 0"
        )


def _resolution(config: Config) -> Mistakes:
    """Checks that height and width are whole numbers of pixels at every level."""
    total = config.model.patch_size * 2 ** (len(config.model.channel_multipliers) - 1)
    why = "model.patch_size and a halving for each level"
    if features := config.autoencoder.level_features:
        total, why = 2 ** (len(features) - 1), "a halving for each of autoencoder.level_features"
    elif config.autoencoder.path:
        total, why = total * config.autoencoder.factor, f"autoencoder.factor, {why}"
    for key in ("height", "width"):
        size, name = getattr(config.data, key), f"data.{key}"
        yield from _divides(size, name, total, why)
        yield from _divides(size, name, config.upscale.factor, "upscale.factor")


def _features(config: Config) -> Mistakes:
    """Checks that normalisation groups and attention heads divide the numbers of features."""
    model = config.model
    levels = len(model.channel_multipliers)
    for level, (multiple, channels) in enumerate(
        zip(model.channel_multipliers, level_channels(model), strict=True)
    ):
        name = f"model.channels * channel_multipliers[{level}]"
        if channels < 1 or not math.isclose(channels, model.channels * multiple):
            yield f"{name} is {model.channels * multiple}; it must be a whole number"
        yield from _divides(channels, name, model.groups, "model.groups")
        # The coarsest level always attends: over time, and in a network without time over text.
        if model.attention_levels[level] or level == levels - 1:
            key = "heads" if model.heads else "head_channels"
            yield from _divides(channels, name, getattr(model, key), f"model.{key}")
    turned = "rotary positions turn pairs of features"
    if model.heads:
        width = channels // model.heads
        yield from _divides(width, f"the coarsest level's {channels} / model.heads", 2, turned)
    else:
        yield from _divides(model.head_channels, "model.head_channels", 2, turned)
    if model.text_features and model.family == "if":
        yield from _divides(
            model.text_features, "model.text_features", model.text_groups, "model.text_groups"
        )
    if model.text_features and model.text_pooling_heads:
        heads = model.text_pooling_heads
        yield from _divides(config.text.dim, "text.dim", heads, "model.text_pooling_heads")


def _text_encoder(config: Config) -> Mistakes:
    """Checks the settings of the text encoder, without loading its weights.

    The machine that trains may not have the weights, because records can hold the text states.
    """
    text = config.text
    if text_encoders.is_own(text.encoder):
        return
    if not text_encoders.is_known(text.encoder):
        yield f"text.encoder is {text.encoder!r}; choose one of {text_encoders.CHOICES}"
    if text.encoder == "minilm" and text.dim != 384:
        yield (
            f"text.dim is {text.dim}, and the states of 'minilm' have 384 features; set text.dim "
            "to 384"
        )
    if text.encoder == "bytes" and text.fingerprint:
        yield f"text.fingerprint is {text.fingerprint!r}, and 'bytes' has none; leave it empty"


def _source(config: Config) -> Mistakes:
    """Checks that the digits or objects that a synthetic source draws fit into the clip."""
    data = config.data
    pixels = f"{data.height}x{data.width}"
    if data.source == "moving_digits" and min(data.height, data.width) < data.digit_size:
        yield f"data.digit_size is {data.digit_size}, larger than the clip's {pixels} pixels"
    if data.source == "moving_digits" and data.look != "grey" and data.channels == 1:
        yield (
            f"data.look is {data.look!r} and data.channels 1; that look has colours: set "
            "data.channels to 3"
        )
    if data.source == "moving_digits" and data.look == "grey" and data.trail:
        yield (
            f"data.trail is {data.trail:g} and data.look 'grey'; white digits on black leave no "
            "trail: set data.trail to 0, or data.look to 'colours'"
        )
    if data.source == "motions" and data.width < 2 * data.object_size:
        yield (
            f"data.object_size is {data.object_size:g}; it must be at most half of data.width, "
            f"which is {data.width}"
        )
    if data.source == "motions" and data.motion == "rotate" and min(data.height, data.width) < 8:
        yield (
            f"data.motion is 'rotate', and the clip has {pixels} pixels; an arm needs at least "
            "8x8 pixels"
        )
    if data.source == "motions" and data.caption_speed and not data.speed_octaves:
        yield (
            "data.caption_speed is True, and data.speed_octaves is 0, so all objects move at about "
            "the same speed; raise data.speed_octaves or set data.caption_speed to False"
        )


def _latents(config: Config) -> Mistakes:
    """Checks that nothing needs pixels where the network denoises latents."""
    if not config.autoencoder.path:
        return
    data = config.data
    needs_pixels = {
        f"data.crop is {data.crop!r}": (
            data.crop != "centre",
            "latents are stored of the centre of each picture: set data.crop to 'centre'",
        ),
        "data.mirror is True": (
            data.mirror,
            "latents of a picture are not those of its mirror image: set data.mirror to False",
        ),
        f"upscale.factor is {config.upscale.factor}": (
            config.upscale.factor > 1,
            "networks that enlarge clips see pixels alone: set upscale.factor to 1",
        ),
        f"tsr.stride is {config.tsr.stride}": (
            config.tsr.stride > 1,
            "networks that are given keyframes see pixels alone: set tsr.stride to 1",
        ),
        f"sample.threshold is {config.sample.threshold!r}": (
            config.sample.threshold != "none",
            "latents are not bounded by -1 and 1: set sample.threshold to 'none'",
        ),
        f"distil.threshold is {config.distil.threshold!r}": (
            config.distil.steps > 0 and config.distil.threshold != "none",
            "latents are not bounded by -1 and 1: set distil.threshold to 'none'",
        ),
    }
    for what, (is_so, remedy) in needs_pixels.items():
        if is_so:
            yield f"autoencoder.path is set and {what}; {remedy}"


# Groups and keys that say how clips are denoised, or what a network that denoises is begun with.
_OF_DENOISERS = (
    *("freeze", "model.", "diffusion.", "masks.", "upscale.", "tsr.", "lora.", "distil."),
    *("train.init_from", "train.temporal_rate", "train.spatial_rate", "train.text_rate"),
    *("log.validate_times", "evaluate.", "sample."),
)
# Keys of these that an autoencoder has too: how many clips are shown, and which weights are read.
_OF_BOTH = ("sample.num", "sample.checkpoint")


def _trained_autoencoder(config: Config) -> Mistakes:
    """Checks the autoencoder that a run trains, and that nothing else is asked of the run."""
    of = config.autoencoder
    if not of.level_features:
        return
    if of.path:
        yield (
            f"autoencoder.level_features and autoencoder.path, {of.path!r}, are set; a run trains "
            "an autoencoder or a network on the latents of one: keep one of the two"
        )
    if min(of.level_features) < 1:
        yield f"autoencoder.level_features is {of.level_features}; each level has at least one"
    for level, features in enumerate(of.level_features):
        yield from _divides(
            features, f"autoencoder.level_features[{level}]", of.groups, "autoencoder.groups"
        )
    for key, field in fields():
        value = operator.attrgetter(key)(config)
        if key.startswith(_OF_DENOISERS) and key not in _OF_BOTH and value != field.default:
            yield (
                f"autoencoder.level_features is set and {key} is {value!r}; the run trains an "
                f"autoencoder, which does not denoise: leave {key} at {field.default!r}"
            )


def _mix(config: Config) -> Mistakes:
    """Checks the further sources of a run: each as if it were the main one, and their weights."""
    main, sources = config.data, all_sources(config.data)
    total = sum(data.weight for data in sources.values())
    if not total:
        yield (
            "data.weight and all weights in data.mix are 0; at least one must be above 0"
            if main.mix
            else "data.weight is 0, and data.mix names no other source; set data.weight above 0"
        )
    if main.clips_per_update:
        yield (
            f"data.clips_per_update is {main.clips_per_update}; for the main source, set "
            "train.batch_size instead"
        )
    sizes: dict[str, tuple[str, int]] = {}
    for name, data in sources.items():
        if name == MAIN:
            continue
        yield from _clips_per_update(config, name, data, sizes)
        if dataclasses.replace(data, weight=main.weight) == sources[MAIN]:
            yield (
                f"data.mix.{name} differs from data in nothing but its weight; set a key in which "
                f"it differs, such as data.mix.{name}.source"
            )
        if 0 < data.weight < LEAST_SHARE * total:
            yield (
                f"data.mix.{name}.weight is {data.weight:g}, and all weights sum to {total:g}; a "
                f"source has at least one of {1 / LEAST_SHARE:,.0f} clips, or the weight 0"
            )
        if data.frames * data.height * data.width > main.frames * main.height * main.width:
            yield (
                f"data.mix.{name} has clips of {shape(data)} (frames, rows, columns), larger than "
                f"those of data, {shape(main)}; let data describe the source with the largest clips"
            )
        alone = dataclasses.replace(config, data=data)
        for check in (_frozen_weights, _frames, _resolution, _source, _latents, _conditioning):
            for mistake in check(alone):
                yield f"data.mix.{name}: {mistake}"


def _clips_per_update(
    config: Config, name: str, data: Data, sizes: dict[str, tuple[str, int]]
) -> Mistakes:
    """Checks the clips in each update on a further source.

    Args:
        config: the config.
        name: name of the source.
        data: what describes the source.
        sizes: maps each shape of clips so far to a source and its clips in each update.
    """
    clips, key = data.clips_per_update, f"data.mix.{name}.clips_per_update"
    if clips and shape(data) == shape(config.data):
        yield f"{key} is {clips}, and its clips have the shape of data; set train.batch_size"
    if clips:
        yield from _divides(clips, key, config.train.accumulate, "train.accumulate")
        other, size = sizes.setdefault(shape(data), (name, clips))
        if size != clips:
            yield (
                f"{key} is {clips} and data.mix.{other}.clips_per_update {size}; both have clips "
                f"of {shape(data)}, which share their updates: give both the same"
            )


def _validation(config: Config) -> Mistakes:
    times = config.log.validate_times
    if not all(0 <= time <= 1 for time in times):
        yield f"log.validate_times is {times}; noise times must be between 0 and 1"


def _profile(config: Config) -> Mistakes:
    profile, steps = config.profile, config.train.steps
    last = profile.start + profile.steps - 1
    if profile.steps and last > steps:
        yield (
            f"profile asks for updates {profile.start} to {last}, and train.steps is {steps}; "
            "lower profile.start or profile.steps"
        )


def _noise_schedule(config: Config) -> Mistakes:
    least, most = config.diffusion.log_snr_min, config.diffusion.log_snr_max
    if least >= most:
        yield (
            f"diffusion.log_snr_min is {least:g} and diffusion.log_snr_max {most:g}; the minimum "
            "must be below the maximum"
        )
    first, last = config.diffusion.beta_start, config.diffusion.beta_end
    if first >= last:
        yield (
            f"diffusion.beta_start is {first:g} and diffusion.beta_end {last:g}; the first must be "
            "below the last"
        )


def _zero_terminal_snr(config: Config) -> Mistakes:
    diffusion = config.diffusion
    if not diffusion.zero_terminal_snr:
        return
    if diffusion.schedule not in BETA_SCHEDULES:
        able = " and ".join(map(repr, BETA_SCHEDULES))
        yield (
            f"diffusion.zero_terminal_snr is true and diffusion.schedule {diffusion.schedule!r}; "
            f"only {able} can end in pure noise: choose one of them"
        )
    if diffusion.prediction == "eps":
        yield (
            "diffusion.zero_terminal_snr is true and diffusion.prediction 'eps'; the noise alone "
            "says nothing of the clip where nothing else is left: choose 'v'"
        )


def _sampling(config: Config) -> Mistakes:
    sample = config.sample
    may_churn = sample.sampler in ("ddim", "heun") or extensions.names_object(sample.sampler)
    if sample.churn and not may_churn:
        yield (
            f"sample.churn is {sample.churn:g} and sample.sampler {sample.sampler!r}; fresh noise "
            "needs the sampler 'ddim' or 'heun': choose one of them, or set sample.churn to 0"
        )
    if sample.checkpoint not in ("newest", "best") and not sample.checkpoint.isdecimal():
        yield (
            f"sample.checkpoint is {sample.checkpoint!r}; choose 'newest', 'best' or a number of "
            "updates, such as '2000'"
        )
    if sample.autoguidance_scale != 1 and not sample.autoguidance_from:
        yield (
            f"sample.autoguidance_scale is {sample.autoguidance_scale:g} and "
            "sample.autoguidance_from empty; name a weaker version of the network, such as '1000' "
            "for the run's checkpoint after 1000 updates"
        )
    if sample.guidance_first > sample.guidance_last:
        yield (
            f"sample.guidance_first is {sample.guidance_first:g} and sample.guidance_last "
            f"{sample.guidance_last:g}; the first noise time must not be above the last"
        )


def _distillation(config: Config) -> Mistakes:
    """Checks that a student has a teacher, and that it is sampled as it is trained."""
    distil, sample = config.distil, config.sample
    if not distil.steps:
        return
    if not config.train.init_from:
        yield (
            f"distil.steps is {distil.steps} and train.init_from empty; set it to the working "
            "directory of the run to distil, which is the teacher"
        )
    yield from _divides(distil.teacher_steps, "distil.teacher_steps", distil.steps, "distil.steps")
    if sample.sampler != "ddim":
        yield (
            f"distil.steps is {distil.steps} and sample.sampler {sample.sampler!r}; a distilled "
            "network has learnt steps of 'ddim': set sample.sampler to it"
        )
    if distil.guidance_scale != 1 and sample.guidance_scale not in (0, 1):
        yield (
            f"distil.guidance_scale is {distil.guidance_scale:g} and sample.guidance_scale "
            f"{sample.guidance_scale:g}; the network has learnt the guided estimates: set "
            "sample.guidance_scale to 1"
        )


def _mesh(config: Config) -> Mistakes:
    sizes = dataclasses.asdict(config.mesh)
    del sizes["context_axis"]
    if 0 in sizes.values() or [*sizes.values()].count(-1) > 1:
        shown = ", ".join(f"mesh.{axis} {size}" for axis, size in sizes.items())
        yield f"the mesh has {shown}; each size must be positive, and at most one of them -1"


def _batch(config: Config) -> Mistakes:
    train = config.train
    yield from _divides(train.batch_size, "train.batch_size", train.accumulate, "train.accumulate")


def _learning_rate(config: Config) -> Mistakes:
    """Checks that the learning rate falls after the warm-up and before the end of the run."""
    train = config.train
    begin, name = train.decay_begin, f"train.decay_begin is {train.decay_begin}"
    if begin and train.schedule in ("cosine", "constant"):
        yield (
            f"{name} and train.schedule {train.schedule!r}, which does not use it; choose the "
            "schedule 'wsd' or 'inverse_sqrt', or set train.decay_begin to 0"
        )
    elif begin and not train.warmup_steps <= begin < train.steps:
        yield (
            f"{name}; the learning rate begins to fall after the warm-up of {train.warmup_steps} "
            f"updates and before the last of {train.steps}"
        )
    if train.schedule == "inverse_sqrt" and not (begin or train.warmup_steps):
        yield (
            "train.schedule is 'inverse_sqrt', and train.decay_begin and train.warmup_steps are 0; "
            "set train.decay_begin to the update from which the learning rate falls"
        )


def _schedule_free(config: Config) -> Mistakes:
    """Checks that schedule-free AdamW has a weight to average and a learning rate that stays."""
    train = config.train
    if train.optimizer != "schedule_free":
        return
    if train.schedule != "constant":
        yield (
            f"train.optimizer is 'schedule_free' and train.schedule {train.schedule!r}; its "
            "averaged weights replace a falling learning rate: set train.schedule to 'constant'"
        )
    if not train.beta1:
        yield (
            "train.optimizer is 'schedule_free' and train.beta1 0, which leaves no average; set "
            "train.beta1 above 0, such as 0.9"
        )


def _checkpoints(config: Config) -> Mistakes:
    """Checks the keys that say which checkpoints are kept.

    A checkpoint to keep must be saved. If the best checkpoint is kept, its loss must be measured.
    """
    checkpoint, log = config.checkpoint, config.log
    if checkpoint.keep_every:
        yield from _divides(
            checkpoint.keep_every, "checkpoint.keep_every", checkpoint.every, "checkpoint.every"
        )
    best, at_times = checkpoint.keep_best, [f"val/loss_t={time:g}" for time in log.validate_times]
    # Which metrics an evaluation has depends on the clips: `stunet.evaluate.in_training` checks it.
    if best not in ("", "loss", "val/loss", *at_times) and not best.startswith("eval/"):
        yield (
            f"checkpoint.keep_best is {best!r}; choose one of loss, val/loss, "
            f"{', '.join(at_times)}, or eval/ with a metric of evaluate.metrics, such as "
            "eval/coherent"
        )
    measured_every = {
        "val/": ("log.validate_every", log.validate_every),
        "eval/": ("evaluate.every", config.evaluate.every),
    }
    for prefix, (key, every) in measured_every.items():
        if best.startswith(prefix) and not every:
            yield f"checkpoint.keep_best is {best!r} and {key} is 0, so that nothing measures it"
        elif best.startswith(prefix):
            yield from _divides(checkpoint.every, "checkpoint.every", every, key)


def _evaluation(config: Config) -> Mistakes:
    """Checks that the run can be evaluated: it makes clips, and metrics are named."""
    evaluate = config.evaluate
    if evaluate.every and config.upscale.factor > 1:
        yield (
            f"evaluate.every is {evaluate.every} and upscale.factor {config.upscale.factor}; a "
            "network that enlarges clips makes none from captions: set evaluate.every to 0"
        )
    if evaluate.every and not evaluate.metrics:
        yield (
            f"evaluate.every is {evaluate.every} and evaluate.metrics is empty; name metrics, such "
            "as coherence, or set evaluate.every to 0"
        )


def _conditioning(config: Config) -> Mistakes:
    """Checks that the network is given at most one input beside the noisy clip."""
    shares = sum(dataclasses.asdict(config.masks).values())
    if shares and not math.isclose(shares, 1, rel_tol=1e-6):
        yield f"the shares in masks sum to {shares:g}; they must sum to 1, or all be 0"
    given = {
        f"upscale.factor is {config.upscale.factor}": config.upscale.factor > 1,
        f"tsr.stride is {config.tsr.stride}": config.tsr.stride > 1,
        "masks are set": shares > 0,
    }
    if sum(given.values()) > 1:
        yield (
            f"{' and '.join(what for what, is_set in given.items() if is_set)}; a network can be "
            "given only one of a low-resolution clip, keyframes and parts of the clip: keep one "
            "of upscale.factor, tsr.stride and masks"
        )


# The order matters: later checks rely on `_levels`, that each list has an entry for each level.
_CHECKS: tuple[Callable[[Config], Mistakes], ...] = (
    _trained_autoencoder,
    _levels,
    _family,
    _attention,
    _level_embedding,
    _frozen_weights,
    _frames,
    _resolution,
    _features,
    _text_encoder,
    _source,
    _latents,
    _validation,
    _profile,
    _noise_schedule,
    _zero_terminal_snr,
    _sampling,
    _distillation,
    _mesh,
    _batch,
    _learning_rate,
    _schedule_free,
    _checkpoints,
    _evaluation,
    _conditioning,
    _mix,
)


def _keyframe_remedy(config: Config) -> str:
    """Names the nearest number of frames that keyframes and temporal factors allow.

    An allowed number is one more than a multiple of `tsr.stride`, and a multiple of the product of
    the temporal factors. There may be no such number.
    """
    stride, frames = config.tsr.stride, config.data.frames
    total = math.prod(config.model.temporal_factors) if config.model.temporal else 1
    fitting = [n for n in range(1 + stride, frames + stride * total + 2, stride) if n % total == 0]
    if fitting:
        return f"so try data.frames {min(fitting, key=lambda n: abs(n - frames))}"
    return f"which no multiple of {total} frames allows: try another tsr.stride"


def _divides(value: int, key: str, by: int, why: str) -> Mistakes:
    """Yields a mistake if the `value` of `key` is no multiple of `by`. `why` says what `by` is."""
    if value % by:
        nearest = max(by, round(value / by) * by)
        yield f"{key} is {value}; it must be a multiple of {by} ({why}): try {nearest}"
