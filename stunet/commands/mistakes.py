"""Explains an unknown argument: what the user may have meant, and how to write it."""

import re
import shlex
from collections.abc import Collection, Sequence

from stunet.errors import closest

# How a key of the config may be written by mistake: any number of dashes, with or without "config".
_KEY = re.compile(r"[-\N{EN DASH}\N{EM DASH}]*(?:config\.)?((?:\w+\.)*[A-Za-z]\w*)", re.ASCII)


def explain(
    argument: str, following: Sequence[str], flags: Collection[str], takes_keys: bool
) -> str:
    """Returns one sentence about an unknown argument.

    Args:
        argument: the argument as the user wrote it, such as "--train.steps=20".
        following: the arguments after the unknown one. The first of these may be its value.
        flags: the flags that the command takes.
        takes_keys: True if the command takes `--config.KEY=VALUE`.
    """
    name, equals, value = argument.partition("=")
    match = _KEY.fullmatch(name)
    if match and name.startswith("--config.") and not takes_keys:
        flag = "--" + match[1].rpartition(".")[2].replace("_", "-")
        hint = _did_you_mean(flag, flags)
        return f"unknown argument {argument!r}: this command takes no keys of the config{hint}"
    hint = _did_you_mean(name, flags)
    if hint or not match or not takes_keys or not (equals or argument.startswith("-")):
        return f"unknown argument {argument!r}{hint}"
    if not equals:
        value = next((word for word in following[:1] if not word.startswith("--")), "VALUE")
    return _about_key(argument, match[1], shlex.quote(value))


def _about_key(argument: str, key: str, value: str) -> str:
    """Returns a sentence about an argument with which the user meant to set a key of the config."""
    from stunet.configs import fields
    from stunet.configs.suggestions import unknown_key

    known = dict(fields())
    if key in known:
        what = "needs an equals sign" if argument.startswith("--config.") else "is a config key"
        return f"{argument!r} {what}; write --config.{key}={value}"
    reason = re.sub(r"^unknown key '[^']*'[;:] ", "", str(unknown_key(key)))
    if reason.startswith("did you mean"):
        end = f"={value}"
        reason = re.sub(r"'([\w.]+)'", lambda m: f"--config.{m[1]}{end * (m[1] in known)}", reason)
    return f"unknown argument {argument!r}; {reason}"


def _did_you_mean(flag: str, flags: Collection[str]) -> str:
    near = closest(flag, flags)
    return f"; did you mean {near!r}?" if near else ""
