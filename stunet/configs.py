"""What an experiment may say: every key, its default, its type and its range.

The dataclasses below are the schema. `experiments/*.py` start from `default()`, an ml_collections
ConfigDict of the same keys; `load` reads such a file with the command line's overrides; `resolve`
checks it and returns the frozen `Config` that the rest of the program uses.
"""

import dataclasses
import difflib
import json
import math
import pathlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from stunet.errors import UserError
from stunet.files import atomic


def _field(default, doc: str, *, least=None, above=None, most=None, choices=None):
    """A key with its documentation and range."""
    return dataclasses.field(
        default=default,
        metadata=dict(doc=doc, least=least, above=above, most=most, choices=choices),
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """The network (`stunet.nn.stunet`)."""

    channels: int = _field(64, "features of the finest level", least=1)
    channel_multipliers: tuple[float, ...] = _field(
        (1, 2, 3, 4), "features of each level, finest first, as multiples of `channels`"
    )
    layers_per_level: int = _field(3, "layers of each level on the way down", least=1)
    attention_levels: tuple[bool, ...] = _field(
        (False, True, True, True), "levels whose layers attend to pixels and text"
    )
    temporal: bool = _field(True, "False: the text-to-image network alone, frame by frame")
    temporal_factors: tuple[int, ...] = _field(
        (1, 2, 2, 2), "by how much time shrinks on entering each level; the first is 1"
    )
    temporal_attention_blocks: int = _field(
        2, "stacked after each layer of the coarsest level", least=0
    )
    temporal_resize_init: str = _field(
        "nearest", "initialisation of temporal resizing", choices=("nearest", "he")
    )
    patch_size: int = _field(1, "pixels on a side folded into channels at the input", least=1)
    groups: int = _field(32, "of the group norms", least=1)
    head_channels: int = _field(64, "features of one attention head", least=2)
    text_features: int = _field(
        768, "width of the text states inside attention; 0: no text", least=0
    )
    text_groups: int = _field(32, "groups of the norm of text states in attention", least=1)
    text_pooling_heads: int = _field(
        8, "of the attention that pools text into the time embedding; 0: not pooled", least=0
    )
    activation: str = _field("gelu", "non-linearity", choices=("gelu", "silu"))
    dtype: str = _field("float32", "of the computation", choices=("float32", "bfloat16"))
    remat: str = _field(
        "none",
        "what the backward pass computes anew: 'full' stores each layer's input alone",
        choices=("none", "full", "dots", "dots_no_batch"),
    )
    scan_layers: bool = _field(False, "run equal layers of a level as one scan: compiles faster")


@dataclasses.dataclass(frozen=True)
class Text:
    """How captions become token states (`stunet.nn.text`)."""

    encoder: str = _field("bytes", "which encoder", choices=("bytes",))
    max_length: int = _field(64, "tokens; longer captions are cut", least=1)
    dim: int = _field(64, "width of a token's state", least=8)


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """The objective (`stunet.diffusion`)."""

    schedule: str = _field("cosine", "noise schedule", choices=("cosine", "linear"))
    shift: float = _field(
        1.0, "reference resolution / clip resolution: below 1 shifts towards noise", above=0
    )
    log_snr_min: float = _field(-15.0, "log-SNR at t = 1")
    log_snr_max: float = _field(15.0, "log-SNR at t = 0")
    prediction: str = _field("v", "what the network predicts", choices=("eps", "v", "x0"))
    weighting: str = _field("min_snr", "weight of noise levels", choices=("uniform", "min_snr"))
    min_snr_gamma: float = _field(5.0, "gamma of min_snr", above=0)
    caption_dropout: float = _field(
        0.1, "share of clips trained without their caption, for guidance", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """Where clips come from (`stunet.data`)."""

    source: str = _field("moving_digits", "kind of source", choices=("moving_digits", "clips"))
    path: str = _field("", "of source 'clips': directory written by `stunet prepare`, or of TFDS")
    frames: int = _field(16, "frames of a clip", least=1)
    height: int = _field(16, "rows", least=1)
    width: int = _field(16, "columns", least=1)
    channels: int = _field(3, "1 (grey) or 3 (RGB)", choices=(1, 3))
    fps: float = _field(8.0, "frames per second, for what is written", above=0)
    num_digits: int = _field(1, "of moving_digits: digits in a clip", least=1)
    digit_size: int = _field(8, "of moving_digits: pixels on a side of a digit", least=8)
    digit_styles: int = _field(
        0, "of moving_digits: handwritten images of each digit; 0: all, about 160", least=0
    )
    num_clips: int = _field(
        0, "train on the first so many clips of the source only; 0: all", least=0
    )
    num_threads: int = _field(2, "that read ahead, in each process", least=0)


@dataclasses.dataclass(frozen=True)
class Train:
    """The updates (`stunet.train`)."""

    steps: int = _field(10_000, "number of updates", least=1)
    batch_size: int = _field(16, "clips in an update, over all hosts", least=1)
    accumulate: int = _field(1, "parts that a batch is computed in, to save memory", least=1)
    learning_rate: float = _field(1e-4, "AdamW's, after warm-up", above=0)
    warmup_steps: int = _field(100, "of linear warm-up", least=0)
    final_learning_rate: float = _field(
        0.0, "at the end of the cosine decay, as a share of `learning_rate`", least=0, most=1
    )
    beta1: float = _field(0.9, "AdamW's", least=0, most=1)
    beta2: float = _field(0.99, "AdamW's", least=0, most=1)
    weight_decay: float = _field(0.0, "AdamW's, on matrices and kernels alone", least=0)
    clip_norm: float = _field(1.0, "largest norm of the whole gradient", above=0)
    ema_decay: float = _field(
        0.999, "of the averaged weights that are sampled from", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Extent of each mesh axis (`stunet.parallel`); one may be -1: all devices that are left."""

    slice: int = _field(1, "slices joined by the data-centre network; splits the batch", least=-1)
    data: int = _field(-1, "splits the batch", least=-1)
    fsdp: int = _field(1, "splits the batch, and the weights where they are stored", least=-1)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the state is saved."""

    every: int = _field(1000, "updates between checkpoints", least=1)
    keep: int = _field(3, "latest checkpoints that stay", least=1)


@dataclasses.dataclass(frozen=True)
class Log:
    """What is measured while training."""

    every: int = _field(50, "updates between lines of metrics", least=1)
    validate_every: int = _field(1000, "updates between validations; 0: never", least=0)
    validate_clips: int = _field(64, "held-out clips in a validation", least=1)
    validate_times: tuple[float, ...] = _field(
        (0.1, 0.3, 0.5, 0.7, 0.9), "noise times in 0..1 at which held-out clips are denoised"
    )
    sample_every: int = _field(1000, "updates between sample clips; 0: never", least=0)


@dataclasses.dataclass(frozen=True)
class Sample:
    """How clips are sampled, unless the command line says otherwise."""

    sampler: str = _field("ddim", "which one", choices=("ddim", "ancestral", "dpmpp_2m"))
    steps: int = _field(50, "calls of the network", least=1)
    guidance_scale: float = _field(2.0, "1: none, 0: ignore the caption", least=0)
    threshold: str = _field(
        "dynamic", "keeps estimates in -1..1", choices=("dynamic", "static", "none")
    )
    threshold_percentile: float = _field(99.5, "of the dynamic threshold", above=0, most=100)
    num: int = _field(4, "clips sampled while training", least=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    seed: int = _field(0, "of everything random", least=0, most=2**31 - 1)
    model: Model = dataclasses.field(default_factory=Model)
    text: Text = dataclasses.field(default_factory=Text)
    diffusion: Diffusion = dataclasses.field(default_factory=Diffusion)
    data: Data = dataclasses.field(default_factory=Data)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    log: Log = dataclasses.field(default_factory=Log)
    sample: Sample = dataclasses.field(default_factory=Sample)


# What may differ when a run is continued: nothing here changes which update follows which.
FREE_TO_CHANGE = ("mesh", "checkpoint", "log", "sample", "data.num_threads", "data.path")


def default() -> ConfigDict:
    """The defaults, to be changed by an experiment's `get_config()`."""
    # Types are `resolve`'s to check, which names the key and says what it must be.
    return ConfigDict(dataclasses.asdict(Config()), type_safe=False)


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads an experiment file.

    Args:
        path: a Python file with `get_config()`, optionally followed by `:argument` for it.
        overrides: `--config.a.b=value` flags.

    Raises:
        UserError: no such file, or anything that `resolve` refuses.
    """
    file = path.split(":", 1)[0]
    if not pathlib.Path(file).is_file():
        near = sorted(str(p) for p in pathlib.Path("experiments").glob("*.py"))
        hint = f"; there are {', '.join(near)}" if near else ""
        raise UserError(f"--config: no file {file!r}{hint}")
    known = dict(_leaves(Config))
    for flag in overrides:
        key = flag.lstrip("-").split("=", 1)[0].removeprefix("config.")
        if key not in known:
            raise _unknown(key, known)
    values, argv = flags.FlagValues(), ["stunet", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except flags.Error as error:
        raise UserError(str(error).splitlines()[0]) from error
    except Exception as error:  # Whatever the file itself raises.
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {type(error).__name__}: {reason}") from error
    return resolve(values.config)


def resolve(config: Mapping[str, Any]) -> Config:
    """Checks every key, type, range and combination.

    Raises:
        UserError: the first thing that is wrong, with what would be right.
    """
    raw = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    resolved = _build(Config, raw, "")
    _check_combinations(resolved)
    return resolved


def write(config: Config, file: pathlib.Path) -> None:
    """Writes the config as JSON, whole or not at all."""
    with atomic(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read(file: pathlib.Path) -> Config:
    """Reads what `write` wrote.

    Raises:
        UserError: the file is not a config, or is one of another version of this program.
    """
    try:
        return resolve(json.loads(file.read_text()))
    except (json.JSONDecodeError, UserError) as error:
        raise UserError(f"{file} is not a config of this program ({error})") from error


def differences(old: Config, new: Config) -> list[str]:
    """What a continued run may not change and does, as `key is OLD there and NEW here`."""
    was, now = dict(_values(old)), dict(_values(new))
    return [
        f"{key} is {was[key]!r} there and {now[key]!r} here"
        for key in was
        if was[key] != now[key]
        and not any(key == free or key.startswith(f"{free}.") for free in FREE_TO_CHANGE)
    ]


def level_channels(model: Model) -> tuple[int, ...]:
    """Features of each level, finest first."""
    return tuple(round(model.channels * m) for m in model.channel_multipliers)


def _build(cls, raw: Mapping[str, Any], prefix: str):
    if not isinstance(raw, Mapping):
        raise UserError(f"{prefix.rstrip('.')} is a group of keys, not {raw!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            raise _unknown(prefix + key, dict(_leaves(Config)))
    values = {}
    for key, value in raw.items():
        if dataclasses.is_dataclass(types[key]):
            values[key] = _build(types[key], value, f"{prefix}{key}.")
        else:
            values[key] = _checked(prefix + key, value, types[key], fields[key].metadata)
    return cls(**values)


def _checked(key: str, value, kind, limits):
    value = _converted(key, value, kind)
    if limits["choices"] is not None and value not in limits["choices"]:
        close = difflib.get_close_matches(str(value), map(str, limits["choices"]), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"{key} is {value!r}; {hint}choose one of {', '.join(map(repr, limits['choices']))}"
        )
    for word, broken in (
        ("least", lambda limit: value < limit),
        ("above", lambda limit: value <= limit),
        ("most", lambda limit: value > limit),
    ):
        if limits[word] is not None and broken(limits[word]):
            phrase = {"least": "at least", "above": "above", "most": "at most"}[word]
            raise UserError(f"{key} is {value}; it must be {phrase} {limits[word]}")
    return value


def _converted(key: str, value, kind):
    """`value` as `kind`, if it is one; ints pass for floats and lists for tuples, nothing else."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{key} is {value!r}; it must be a tuple, such as (1, 2)")
        item = typing.get_args(kind)[0]
        return tuple(_converted(f"{key}[{i}]", v, item) for i, v in enumerate(value))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return float(value)
    if kind is int and is_number and isinstance(value, int):
        return value
    if kind in (bool, str) and isinstance(value, kind):
        return value
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a string"}
    raise UserError(f"{key} is {value!r}; it must be {words[kind]}")


def _unknown(key: str, known: Mapping[str, Any]) -> UserError:
    groups = {k.split(".")[0] for k in known if "." in k}
    if key in groups:
        return UserError(f"'{key}' is a group of keys; set one of its keys, such as {key}.NAME")
    # A key typed right under the wrong group is the likelier mistake than one spelt alike.
    last = key.rsplit(".", 1)[-1]
    close = [k for k in known if k.rsplit(".", 1)[-1] == last]
    close = close or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return UserError(f"unknown key '{key}'{hint}")


def _leaves(cls, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    types = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(types[f.name]):
            yield from _leaves(types[f.name], f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    for key, _ in _leaves(Config):
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        yield key, value


def _nearest_multiple(value: int, of: int) -> int:
    return max(of, round(value / of) * of)


def _divides(value: int, key: str, by: int, why: str) -> None:
    if value % by:
        raise UserError(
            f"{key} is {value}, which {by} does not divide ({why}); "
            f"try {_nearest_multiple(value, by)}"
        )


def _check_combinations(config: Config) -> None:
    model, data, train = config.model, config.data, config.train
    levels = len(model.channel_multipliers)
    if levels < 1:
        raise UserError("model.channel_multipliers is empty; give one multiple for each level")
    for key in ("attention_levels", "temporal_factors"):
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
    if model.temporal:
        total = math.prod(model.temporal_factors)
        _divides(data.frames, "data.frames", total, "the product of model.temporal_factors")
    for key in ("height", "width"):
        total = model.patch_size * 2 ** (levels - 1)
        _divides(
            getattr(data, key),
            f"data.{key}",
            total,
            "model.patch_size and a halving for each level",
        )
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
    if data.source == "clips" and not data.path:
        raise UserError("data.source is 'clips'; data.path must name the directory of the records")
    if data.source == "moving_digits" and min(data.height, data.width) < data.digit_size:
        raise UserError(
            f"data.digit_size is {data.digit_size}, larger than the clip's "
            f"{data.height}x{data.width} pixels"
        )
    if not all(0 <= t <= 1 for t in config.log.validate_times):
        raise UserError(f"log.validate_times is {config.log.validate_times}; times lie in 0..1")
    if config.diffusion.log_snr_min >= config.diffusion.log_snr_max:
        raise UserError("diffusion.log_snr_min must be below diffusion.log_snr_max")
    extents = dataclasses.asdict(config.mesh)
    if 0 in extents.values() or list(extents.values()).count(-1) > 1:
        raise UserError(f"mesh is {extents}; extents are positive, and at most one of them is -1")
    _divides(train.batch_size, "train.batch_size", train.accumulate, "train.accumulate")
