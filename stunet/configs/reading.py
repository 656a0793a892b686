"""Reads configs from experiment files, the command line and `config.json`, and checks every key."""

import dataclasses
import json
import math
import operator
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from stunet.configs import experiments
from stunet.configs.combinations import check_combinations
from stunet.configs.schema import MAY_CHANGE_ON_RESUME, Config, fields
from stunet.configs.suggestions import nearest_choice, unknown_key
from stunet.errors import UserError
from stunet.files import atomic


def default() -> ConfigDict:
    """The defaults, to be changed by an experiment's `get_config()`."""
    # Types are `resolve`'s to check, which names the key and says what it must be.
    return ConfigDict(dataclasses.asdict(Config()), type_safe=False)


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads an experiment file.

    Args:
        path: a Python file with `get_config()`, or the name of an experiment that comes with
            stunet; either may be followed by `:argument` for it. Or what `write` wrote, such as a
            run's config.json.
        overrides: `--config.a.b=value` flags.

    Raises:
        UserError: no such file, or anything that `resolve` refuses.
    """
    if path.endswith(".json") and pathlib.Path(path).is_file():
        return override(read(pathlib.Path(path)), overrides)
    path = experiments.find(path)
    _check_flags(overrides)
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


def override(config: Config, overrides: Sequence[str]) -> Config:
    """The config with `--config.a.b=value` flags applied.

    Raises:
        UserError: anything that `resolve` refuses.
    """
    _check_flags(overrides)
    values, argv = flags.FlagValues(), ["stunet", *overrides]
    changed = ConfigDict(dataclasses.asdict(config), type_safe=False)
    config_flags.DEFINE_config_dict("config", changed, flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except flags.Error as error:
        raise UserError(str(error).splitlines()[0]) from error
    return resolve(values.config)


def resolve(config: Mapping[str, Any]) -> Config:
    """Checks every key, type, range and combination.

    Raises:
        UserError: the first thing that is wrong, with what would be right.
    """
    raw = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    resolved = _build(Config, raw, "")
    check_combinations(resolved)
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
    was, now = flatten(old), flatten(new)
    # A config says nothing of it before training begins. Where both do, it stands for the encoder,
    # whose directory may be another on another machine.
    if not (old.text.fingerprint and new.text.fingerprint):
        now["text.fingerprint"] = was["text.fingerprint"]
    elif old.text.fingerprint == new.text.fingerprint:
        now["text.encoder"] = was["text.encoder"]
    return [
        f"{key} is {was[key]!r} there and {now[key]!r} here"
        for key in was
        if was[key] != now[key]
        and not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE_ON_RESUME)
    ]


def same_text_encoder(one: Config, other: Config) -> bool:
    """Whether both have the same text encoder, which may lie in another directory."""
    return not any(d.startswith("text.") for d in differences(one, other))


def _check_flags(overrides: Sequence[str]) -> None:
    known = dict(fields())
    for flag in overrides:
        key = flag.lstrip("-").split("=", 1)[0].removeprefix("config.")
        if key not in known:
            raise unknown_key(key)


def _build(cls, raw: Mapping[str, Any], prefix: str):
    if not isinstance(raw, Mapping):
        raise UserError(f"{prefix.rstrip('.')} is a group of keys, not {raw!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    for key, value in raw.items():
        if key not in known:
            raise unknown_key(_first_key(prefix + key, value))
    values = {}
    for key, value in raw.items():
        if dataclasses.is_dataclass(types[key]):
            values[key] = _build(types[key], value, f"{prefix}{key}.")
        else:
            values[key] = _checked(prefix + key, value, types[key], known[key].metadata)
    return cls(**values)


def _first_key(key: str, value: Any) -> str:
    """Returns the first key of an unknown group, such as "optimizer.lr", or `key` itself."""
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return key


def _checked(key: str, value, kind, limits):
    value = _converted(key, value, kind)
    if limits["choices"] is not None and value not in limits["choices"]:
        nearest = nearest_choice(key, value, limits["choices"])
        hint = f"did you mean {nearest!r}? " if nearest else ""
        raise UserError(
            f"{key} is {value!r}; {hint}choose one of {', '.join(map(repr, limits['choices']))}"
        )
    for word, broken in (
        ("least", lambda limit: value < limit),
        ("above", lambda limit: value <= limit),
        ("most", lambda limit: value > limit),
        ("below", lambda limit: value >= limit),
    ):
        if limits[word] is not None and broken(limits[word]):
            phrase = {"least": "at least", "most": "at most"}.get(word, word)
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


def flatten(config: Config) -> dict[str, Any]:
    """Returns the value of every key, by its whole name, such as "train.steps"."""
    return {key: operator.attrgetter(key)(config) for key, _ in fields()}
