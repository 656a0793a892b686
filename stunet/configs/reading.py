"""Reads configs from experiment files, the command line and `config.json`, and checks every key."""

import ast
import dataclasses
import json
import operator
import pathlib
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from stunet import extensions, jsonfiles, paths
from stunet.configs import experiments
from stunet.configs.combinations import check_combinations
from stunet.configs.schema import (
    FINGERPRINTS,
    MAIN,
    MAY_CHANGE_ON_RESUME,
    OF_ALL_SOURCES,
    Config,
    Data,
    Mix,
    fields,
)
from stunet.configs.suggestions import nearest_choice, unknown_key
from stunet.errors import UserError, choose
from stunet.files import atomic
from stunet.stores import addresses, mirror

# The type of a config in rooms that hold it as a whole: they compare it, write it, and hand it to
# `stunet.train.parts`, which alone reads its keys.
Experiment = Config

# Name of the file that holds the weaker version's weights, beside the weights of a network that
# was exported with autoguidance.
WEAKER = "weaker.safetensors"

# Whole numbers from here on are mistakes: no array and no counter of JAX holds them.
_TOO_LARGE = 2**63

# Group of keys of each further source, such as "data.mix.digits.weight".
_MIXED = re.compile(r"data\.mix\.(?P<name>[^.]+)\.(?P<key>.+)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# What may stand for a truth value on the command line, in lower case.
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def default() -> ConfigDict:
    """Returns a config with all defaults, which the `get_config()` of an experiment changes."""
    return _changeable(Config())


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads the config of an experiment or of a run.

    Args:
        path: a Python file with `get_config()`, the name of an experiment that comes with stunet,
            or a JSON file that `write` wrote, such as the config.json of a run, which may be in a
            bucket. If a Python file or a name ends in `:argument`, `get_config` is called with
            `argument`.
        overrides: flags such as `--config.train.steps=100`.

    Raises:
        UserError: there is no such file, it holds no config, or `resolve` refuses the config.
    """
    file = mirror.fetched(path) if path.endswith(".json") else paths.local(path)
    if file.suffix == ".json" and file.is_file():
        try:
            return override(read(file), overrides)
        except UserError as error:
            if file.name == "config.json":
                raise
            raise UserError(f"--config: {error}; the config of a run is its config.json") from error
    config = experiments.call(path, "get_config")
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{path}: get_config() returns {config!r}; it must return what `configs.default()` "
            "makes"
        )
    return _overridden(config, overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Returns the config with the overrides of the command line applied.

    Args:
        config: the config to change.
        overrides: flags such as `--config.train.steps=100`.

    Raises:
        UserError: an override names no key or has a value of the wrong type, or `resolve` refuses
            the result.
    """
    return _overridden(_changeable(config), overrides)


def resolve(config: Mapping[str, Any]) -> Config:
    """Checks every key, type, range and combination of values.

    Args:
        config: a ConfigDict or nested dicts. Keys that are missing get their defaults.

    Raises:
        UserError: something is wrong. The sentence names the first mistake and what would be right.
    """
    raw = config.to_dict() if isinstance(config, ConfigDict) else config
    resolved = _build(Config, raw, "")
    check_combinations(resolved)
    return resolved


def write(config: Config, file: pathlib.Path) -> None:
    """Writes the config to `file` as JSON. If writing fails, `file` stays as it was."""
    with atomic(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read(file: pathlib.Path) -> Config:
    """Reads a JSON file that `write` wrote.

    Raises:
        UserError: the file holds no config, or the config of another version of stunet.
    """
    try:
        return resolve(jsonfiles.read(file, jsonfiles.Object))
    except UserError as error:
        raise UserError(f"{file} is not a config of this version of stunet ({error})") from error


def differences(old: Config, new: Config) -> list[str]:
    """Describes each difference between two configs because of which a run cannot continue.

    Each description is a clause such as "seed is 0 there and 1 here". "there" means `old`, and
    "here" means `new`.

    Args:
        old: the config of the run.
        new: the config to continue it with.
    """
    return [
        f"{key} is {there!r} there and {here!r} here"
        for key, (there, here) in changes(old, new).items()
    ]


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Finds the keys that affect updates and have different values in two configs.

    Args:
        old: the config of a run.
        new: the config to continue it with.

    Returns:
        A dict from each of these keys to its old and new value.
    """
    there, here = flatten(old), flatten(new)
    # A fingerprint is empty before training begins. Where both are known, they decide whether the
    # weights are the same: another machine may have them in another directory.
    for fingerprint, place in FINGERPRINTS.items():
        if not (there[fingerprint] and here[fingerprint]):
            here[fingerprint] = there[fingerprint]
        elif there[fingerprint] == here[fingerprint]:
            here[place] = there[place]
    return {
        key: (there[key], here[key])
        for key in there
        if _without_paths(there[key]) != _without_paths(here[key])
        and not any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE_ON_RESUME)
    }


def _without_paths(value: Any) -> Any:
    """Returns the value of `data.mix` without the sources' paths, which may change."""
    if not isinstance(value, Mix):
        return value
    return {name: {k: v for k, v in of.items() if k != "path"} for name, of in value.items()}


def paths_in(config: Config) -> dict[str, Any]:
    """Returns the keys that name a file or directory of this machine, with their values.

    Neither the directories of the sources in `data.mix` nor a text encoder's are among them.
    """
    values, public = flatten(config), _public_places(config)
    return {
        key: values[key]
        for key, field in fields()
        if field.metadata["path"] is str and values[key] not in ("", public.get(key))
    }


def without_paths(config: Config) -> Config:
    """Returns the config with no value for the keys that name a file or directory.

    `text.encoder` stays, because the network is of no use without its encoder. For the same reason,
    an autoencoder's fingerprint replaces its directory, and with autoguidance, `WEAKER` replaces
    the place of the weaker version.

    Raises:
        UserError: the config needs one of them.
    """
    if config.autoencoder.path and not config.autoencoder.fingerprint:
        raise UserError(
            "autoencoder.fingerprint is empty, so nothing would say which autoencoder decodes the "
            "latents; set it to the one that `stunet train` writes into config.json"
        )
    mixed, public = _without_paths(config.data.mix), _public_places(config)
    values = {key: public.get(key, "") for key in paths_in(config)}
    return replace(config, values | ({"data.mix": mixed} if mixed else {}))


def _public_places(config: Config) -> dict[str, str]:
    """Returns what stands for the places that a network needs to make clips, by key."""
    is_guided = config.sample.autoguidance_scale != 1
    return {
        "autoencoder.path": config.autoencoder.fingerprint,
        "sample.autoguidance_from": WEAKER if is_guided else "",
    }


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns the config with other values of some keys, such as {"train.steps": 100}.

    Raises:
        UserError: anything that `resolve` refuses.
    """
    changed = _changeable(config)
    for key, value in values.items():
        set_key(changed, key, value)
    return resolve(changed)


def reset(config: Config, *groups: str) -> Config:
    """Returns the config with some groups at their defaults, as in `reset(config, "lora")`."""
    defaults = {group: getattr(Config(), group) for group in groups}
    return dataclasses.replace(config, **defaults)


def flatten(config: Config) -> dict[str, Any]:
    """Returns the value of every key, by the full name of the key, such as "train.steps"."""
    return {key: operator.attrgetter(key)(config) for key, _ in fields()}


def set_key(config: ConfigDict, key: str, value: Any) -> None:
    """Sets a key such as "train.steps". `resolve` checks the key and the value later."""
    *groups, name = key.split(".")
    for group in groups:
        if not isinstance(config.get(group), ConfigDict):
            config[group] = ConfigDict(type_safe=False)
        config = config[group]
    config[name] = value


def _changeable(config: Config) -> ConfigDict:
    """Returns a copy of the config that accepts any key and value.

    `resolve` checks keys and values later, because its messages are better than ConfigDict's.
    """
    return ConfigDict(dataclasses.asdict(config), type_safe=False)


def _overridden(config: ConfigDict, overrides: Sequence[str]) -> Config:
    """Applies flags such as `--config.train.steps=100` to a config, and checks the result."""
    known = dict(fields())
    of_data = {f.name: f for f in dataclasses.fields(Data)}
    for flag in overrides:
        name, is_set, text = flag.partition("=")
        key = name.lstrip("-").removeprefix("config.")
        if mixed := _MIXED.fullmatch(key):
            field = choose(of_data, mixed["key"], f"key of data.mix.{mixed['name']}")
        elif key in known:
            field = known[key]
        else:
            raise unknown_key(key)
        if not is_set:
            raise UserError(f"{name} has no value; write {name}=VALUE")
        set_key(config, key, _parsed(text, field.type))
    return resolve(config)


def _parsed(text: str, kind: Any) -> Any:
    """Returns the Python value that `text` stands for, or `text` itself if it cannot be parsed.

    Args:
        text: text from the command line, such as "1,2,4".
        kind: type of the key. `_converted` checks later that the value has this type.
    """
    if kind is str:
        return text
    if kind == tuple[str, ...]:
        return tuple(word for part in text.split(",") if (word := part.strip(" ()[]'\"")))
    if kind is bool:
        return _BOOLS.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, TypeError, ValueError):
        return text
    if kind is float and isinstance(value, int) and abs(value) > sys.float_info.max:
        return text  # ConfigDict could not convert it.
    is_one_item = typing.get_origin(kind) is tuple and not isinstance(value, (tuple, list))
    return (value,) if is_one_item else value


def _build(cls: type, raw: Any, prefix: str) -> Any:
    """Returns an instance of `cls` made of the values in `raw`, after checking each of them.

    Args:
        cls: `Config`, or the class of a group.
        raw: values by name. The value of a group is a nested dict.
        prefix: what goes before each name in messages, such as "train.".
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"{prefix.rstrip('.') or 'a config'} is a group of keys, not {raw!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    types = typing.get_type_hints(cls)
    values = {}
    for name, value in raw.items():
        key = f"{prefix}{name}"
        if name not in known:
            raise unknown_key(_first_key(key, value))
        if dataclasses.is_dataclass(types[name]):
            values[name] = _build(types[name], value, f"{key}.")
        elif types[name] is Mix:
            values[name] = _mix(key, value)
        else:
            values[name] = _checked(key, value, types[name], known[name].metadata)
    return cls(**values)


def _mix(key: str, raw: Any) -> Mix:
    """Returns the further sources of a run, sorted by name, after checking their keys."""
    if not isinstance(raw, Mapping):
        raise UserError(
            f"{key} is {raw!r}; it must be a dict of sources by name, such as "
            "{'digits': {'source': 'moving_digits', 'weight': 0.5}}"
        )
    known = {f.name: f for f in dataclasses.fields(Data)}
    types = typing.get_type_hints(Data)
    sources = {}
    for name, entry in sorted(raw.items()):
        if not _NAME.fullmatch(name) or name == MAIN:
            raise UserError(
                f"{key} has a source {name!r}; a name has small letters, digits and underscores, "
                f"begins with a letter, and is not {MAIN!r}"
            )
        if not isinstance(entry, Mapping):
            raise UserError(
                f"{key}.{name} is {entry!r}; it must be a dict of keys of data, such as "
                "{'source': 'moving_digits', 'weight': 0.5}"
            )
        for one in entry:
            if one in OF_ALL_SOURCES:
                raise UserError(
                    f"{key}.{name} has the key {one!r}, which is the same for all sources of a "
                    f"run; set data.{one}"
                )
            choose(known, one, f"key of {key}.{name}")
        sources[name] = {
            one: _checked(f"{key}.{name}.{one}", value, types[one], known[one].metadata)
            for one, value in sorted(entry.items())
        }
    return Mix(sources)


def _first_key(key: str, value: Any) -> str:
    """Returns the first key inside the group `key`, or `key` itself if it is not a group."""
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return key


def _checked(key: str, value: Any, kind: Any, limits: Mapping[str, Any]) -> Any:
    """Returns `value` with the type `kind`, after checking its choices and its range."""
    value = _converted(key, value, kind)
    for item in value if isinstance(value, tuple) else (value,):
        _check_choice(key, item, limits)
    if limits["path"] is not None:
        try:
            addresses.local(limits["path"](value))
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
    for limit, phrase, is_broken in (
        ("least", "at least", operator.lt),
        ("above", "above", operator.le),
        ("most", "at most", operator.gt),
        ("below", "below", operator.ge),
    ):
        if limits[limit] is not None and is_broken(value, limits[limit]):
            raise UserError(f"{key} is {value}; it must be {phrase} {limits[limit]}")
    return value


def _check_choice(key: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Checks that a value, or an item of a tuple, is one of the key's choices, if it has any."""
    if limits["own"] and extensions.names_object(value):
        # A config may be looked at without trust. `extensions.load` refuses to use the object.
        if extensions.is_trusted(value):
            try:
                extensions.load(value, limits["own"])
            except UserError as error:
                raise UserError(f"{key}: {error}") from error
    elif limits["choices"] is not None and value not in limits["choices"]:
        nearest = nearest_choice(_MIXED.sub(r"data.\g<key>", key), value, limits["choices"])
        hint = f"did you mean {nearest!r}? " if nearest else ""
        raise UserError(
            f"{key} is {value!r}; {hint}choose one of {', '.join(map(repr, limits['choices']))}"
        )


def _converted(key: str, value: Any, kind: Any) -> Any:
    """Returns `value` as the type `kind`. Ints may become floats, and lists become tuples."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{key} is {value!r}; it must be a tuple, such as (1, 2)")
        item = typing.get_args(kind)[0]
        return tuple(_converted(f"{key}[{i}]", v, item) for i, v in enumerate(value))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is int and is_number and isinstance(value, int) and abs(value) < _TOO_LARGE:
        return value
    if kind in (bool, str) and isinstance(value, kind):
        return value
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a string"}
    raise UserError(f"{key} is {value!r}; it must be {words[kind]}")
