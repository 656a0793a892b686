"""Which values go together: extents that divide, lists of the same length."""

import dataclasses
import math

from stunet.configs.schema import Config, Text, clip_span, level_channels
from stunet.errors import UserError


def check_combinations(config: Config) -> None:
    """Checks what no key shows by itself.

    Raises:
        UserError: the first combination that is impossible, with what would be right.
    """
    model, data, train = config.model, config.data, config.train
    levels = len(model.channel_multipliers)
    if levels < 1:
        raise UserError("model.channel_multipliers is empty; give one multiple for each level")
    for key in ("attention_levels", "temporal_factors", *(("layers",) if model.layers else ())):
        if len(getattr(model, key)) != levels:
            raise UserError(
                f"model.{key} has {len(getattr(model, key))} entries and model.channel_multipliers "
                f"{levels}; both have one for each level"
            )
    if model.temporal_factors[0] != 1 or min(model.temporal_factors) < 1:
        raise UserError(
            f"model.temporal_factors is {model.temporal_factors}; the first level keeps every "
            "frame, so it begins with 1, and no factor is below 1"
        )
    if model.layers and min(model.layers) < 1:
        raise UserError(f"model.layers is {model.layers}; each level has at least one")
    if model.text_only_attention and not model.text_features:
        raise UserError(
            "model.text_only_attention is True and model.text_features 0, which leaves nothing to "
            "attend to; give text_features, or set text_only_attention to False"
        )
    if model.level_embedding and config.upscale.factor == 1:
        raise UserError(
            "model.level_embedding is True and upscale.factor 1; the level is that of the "
            "low-resolution clip, which a network is given by upscale.factor"
        )
    if config.freeze == "spatial" and not model.temporal:
        raise UserError(
            "freeze is 'spatial' and model.temporal is False, which leaves nothing to train; "
            "set freeze to 'none'"
        )
    if config.lora.rank and config.freeze != "none":
        raise UserError(
            f"lora.rank is {config.lora.rank} and freeze is {config.freeze!r}; adapters train "
            "alone, with every weight frozen: leave freeze at 'none', or lora.rank at 0"
        )
    if model.temporal:
        total = math.prod(model.temporal_factors)
        _divides(data.frames, "data.frames", total, "the product of model.temporal_factors")
    if config.tsr.stride > 1 and (data.frames == 1 or (data.frames - 1) % config.tsr.stride):
        raise UserError(
            f"data.frames is {data.frames} and tsr.stride {config.tsr.stride}; the first and the "
            f"last frame of a clip are keyframes, {_keyframe_clip(config)}"
        )
    if data.cut_from and data.cut_from < clip_span(data):
        raise UserError(
            f"data.cut_from is {data.cut_from}, and a clip of {data.frames} frames at data.stride "
            f"{data.stride} spans {clip_span(data)} frames of the source; cut from at least so many"
        )
    for key in ("height", "width"):
        total = model.patch_size * 2 ** (levels - 1)
        _divides(
            getattr(data, key),
            f"data.{key}",
            total,
            "model.patch_size and a halving for each level",
        )
        _divides(getattr(data, key), f"data.{key}", config.upscale.factor, "upscale.factor")
    for level, (multiple, channels) in enumerate(
        zip(model.channel_multipliers, level_channels(model), strict=True)
    ):
        what = f"model.channels * channel_multipliers[{level}]"
        if channels < 1 or not math.isclose(channels, model.channels * multiple):
            raise UserError(f"{what} is {model.channels * multiple}; it must be a whole number")
        _divides(channels, what, model.groups, "model.groups")
        # The coarsest level always attends: over time, and in a network without time over text.
        if model.attention_levels[level] or level == levels - 1:
            _divides(channels, what, model.head_channels, "model.head_channels")
    _divides(model.head_channels, "model.head_channels", 2, "rotary positions turn pairs")
    if model.text_features:
        _divides(model.text_features, "model.text_features", model.text_groups, "model.text_groups")
    if model.text_features and model.text_pooling_heads:
        _divides(config.text.dim, "text.dim", model.text_pooling_heads, "model.text_pooling_heads")
    _check_text(config.text)
    if data.source == "moving_digits" and min(data.height, data.width) < data.digit_size:
        raise UserError(
            f"data.digit_size is {data.digit_size}, larger than the clip's "
            f"{data.height}x{data.width} pixels"
        )
    if data.source == "motions" and data.width < 2 * data.object_size:
        raise UserError(
            f"data.object_size is {data.object_size:g}; it is at most half of data.width, which is "
            f"{data.width}"
        )
    if data.source == "motions" and data.motion == "rotate" and min(data.height, data.width) < 8:
        raise UserError(
            f"data.motion is 'rotate', and the clip has {data.height}x{data.width} pixels; an arm "
            "needs 8x8 at least"
        )
    if not all(0 <= t <= 1 for t in config.log.validate_times):
        raise UserError(f"log.validate_times is {config.log.validate_times}; times lie in 0..1")
    profile = config.profile
    last_traced = profile.start + profile.steps - 1
    if profile.steps and last_traced > train.steps:
        raise UserError(
            f"profile asks for updates {profile.start} to {last_traced}, and train.steps is "
            f"{train.steps}; lower profile.start or profile.steps"
        )
    if config.diffusion.log_snr_min >= config.diffusion.log_snr_max:
        raise UserError("diffusion.log_snr_min must be below diffusion.log_snr_max")
    extents = {k: v for k, v in dataclasses.asdict(config.mesh).items() if k != "context_axis"}
    if 0 in extents.values() or list(extents.values()).count(-1) > 1:
        raise UserError(f"mesh is {extents}; extents are positive, and at most one of them is -1")
    _divides(train.batch_size, "train.batch_size", train.accumulate, "train.accumulate")
    shares = sum(dataclasses.asdict(config.masks).values())
    if shares and not math.isclose(shares, 1, rel_tol=1e-6):
        raise UserError(f"the shares of masks sum to {shares:g}; they sum to 1, or all are 0")
    given = {
        f"upscale.factor is {config.upscale.factor}": config.upscale.factor > 1,
        f"tsr.stride is {config.tsr.stride}": config.tsr.stride > 1,
        "masks are set": shares > 0,
    }
    if sum(given.values()) > 1:
        raise UserError(
            f"{' and '.join(what for what, is_set in given.items() if is_set)}; a network is given "
            "either a low-resolution clip or keyframes or parts of the clip: leave one of "
            "upscale.factor, tsr.stride and masks set"
        )


def check_data(config: Config) -> None:
    """Checks that a config names its data.

    What `stunet inflate` writes need not name any yet, and a plan needs none. Training and
    evaluation do.

    Raises:
        UserError: `data.source` is "clips", and `data.path` is empty.
    """
    check_data_path(config.data.source, config.data.path)


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


def _check_text(text: Text) -> None:
    """What can be said without the encoder, which need not be where records are trained on."""
    kind, _, place = text.encoder.partition(":")
    if kind not in ("bytes", "minilm", "t5") or (kind == "t5") != bool(place):
        raise UserError(
            f"text.encoder is {text.encoder!r}; choose 'bytes', 'minilm' or 't5:DIR', whose DIR "
            "holds a T5-v1.1 checkpoint"
        )
    if kind == "minilm" and text.dim != 384:
        raise UserError(
            f"text.dim is {text.dim}, and the states of 'minilm' have 384 features; set text.dim "
            "to 384"
        )
    if kind == "bytes" and text.fingerprint:
        raise UserError(
            f"text.fingerprint is {text.fingerprint!r}, and 'bytes' has none; leave it empty"
        )


def _keyframe_clip(config: Config) -> str:
    """What would be right: the nearest number of frames that is one more than a multiple of
    `tsr.stride` and that the temporal factors divide, if there is one."""
    stride, frames = config.tsr.stride, config.data.frames
    total = math.prod(config.model.temporal_factors) if config.model.temporal else 1
    fitting = [n for n in range(1 + stride, frames + stride * total + 2, stride) if n % total == 0]
    if fitting:
        return f"so try data.frames {min(fitting, key=lambda n: abs(n - frames))}"
    return f"which no number of frames that {total} divides allows: try another tsr.stride"


def _divides(value: int, key: str, by: int, why: str) -> None:
    if value % by:
        raise UserError(
            f"{key} is {value}, which {by} does not divide ({why}); "
            f"try {_nearest_multiple(value, by)}"
        )


def _nearest_multiple(value: int, of: int) -> int:
    return max(of, round(value / of) * of)
