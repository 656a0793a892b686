"""Explains an argument that a command does not take: what it looks like, and how to write that."""

import re
import shlex
from collections.abc import Collection, Sequence

from stunet.errors import closest

# How a key of the config may be written by mistake: any number of dashes, with or without "config".
_KEY = re.compile(r"[-\N{EN DASH}\N{EM DASH}]*(?:config\.)?((?:\w+\.)*\w+)", re.ASCII)
_WRITTEN = "(a key of the config is written --config.KEY=VALUE)"


def explain(
    argument: str, following: Sequence[str], flags: Collection[str], takes_keys: bool
) -> str:
    """Returns one sentence about an unknown argument.

    Args:
        argument: the argument as the user wrote it, such as "--train.steps=20".
        following: the arguments after it, of which the first may be its value.
        flags: the flags that the command takes.
        takes_keys: True if the command takes `--config.KEY=VALUE`.
    """
    name, equals, _ = argument.partition("=")
    match = _KEY.fullmatch(name)
    if match and takes_keys and (sentence := _about_key(argument, match[1], following)):
        return sentence
    if match and name.startswith("--config."):
        last = "--" + match[1].rpartition(".")[2].replace("_", "-")
        hint = _did_you_mean(last, flags)
        return f"unknown argument {argument!r}: this command takes no keys of the config{hint}"
    hint = _did_you_mean(name, flags)
    if match and takes_keys and not hint and (equals or argument.startswith("-")):
        hint = _about_unknown_key(match[1])
    return f"unknown argument {argument!r}{hint}"


def _about_key(argument: str, key: str, following: Sequence[str]) -> str | None:
    """Returns a sentence if `argument` names a key, known or not, beyond doubt."""
    from stunet.configs import fields
    from stunet.configs.suggestions import unknown_key

    name, equals, value = argument.partition("=")
    if not equals:
        value = next((word for word in following[:1] if not word.startswith("--")), "VALUE")
    if key in dict(fields()):
        written = f"write --config.{key}={shlex.quote(value)}"
        if name.startswith("--config."):
            return f"{name} needs an equals sign before its value: {written}"
        return f"{argument!r} looks like a key of the config: {written}"
    if name.startswith("--config.") or ("." in key and (equals or argument.startswith("-"))):
        return f"{unknown_key(key)} {_WRITTEN}"
    return None


def _about_unknown_key(key: str) -> str:
    from stunet.configs.suggestions import unknown_key

    sentence = str(unknown_key(key))
    return f", and {sentence} {_WRITTEN}" if sentence != f"unknown key '{key}'" else ""


def _did_you_mean(flag: str, flags: Collection[str]) -> str:
    near = closest(flag, flags)
    return f"; did you mean {near!r}?" if near else ""
