"""Says what the page asks for each task, and turns a filled-in form into a command line.

The page runs the command line that it shows, through the parser of `stunet sample`. Its clips are
therefore those of the command, and so are the errors.
"""

import pathlib
import shlex
from collections.abc import Mapping, Sequence

from stunet.stores import addresses

# Task of `stunet sample` -> its own flags that the page asks for, in order. All tasks also have
# `--prompt` and the flags of `SETTINGS`.
FIELDS = {
    "text": (),
    "image": ("image",),
    "inpaint": ("video", "box", "mask"),
    "cinemagraph": ("image", "box", "mask"),
    "video": ("video", "strength"),
    "upscale": ("video",),
    "style": ("alpha",),
}
SETTINGS = ("seed", "num", "steps", "guidance", "sampler")
# Flags that take a file of the user.
FILES = ("image", "video", "mask")


def words(task: str, network: pathlib.Path, filled: Mapping[str, object]) -> list[str]:
    """Returns the words after `stunet sample` on the command line of a filled-in form.

    Args:
        task: a task of `stunet sample`.
        network: working directory or weights file of the network.
        filled: flags without their dashes, and their values. A flag whose value is None or "" is
            left out. A flag whose value is a list is repeated.
    """
    line = [task, "--workdir", str(network)]
    for flag, value in filled.items():
        for one in value if isinstance(value, list) else [value]:
            line += _flag(flag, one)
    return line


def _flag(flag: str, value: object) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A value that begins with a dash would be taken for a flag.
    return [f"--{flag}={value}"] if str(value).startswith("-") else [f"--{flag}", str(value)]


def prompts(text: str) -> list[str]:
    """Returns the prompts in a text: one on each line that is not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def shown(line: Sequence[str], files: Sequence[str]) -> str:
    """Returns the command line for a user to copy.

    Args:
        line: what `words` returned.
        files: paths of the user's files on the server. The user knows only their names.
    """
    return named(shlex.join(["stunet", "sample", *line]), files)


def named(text: str, files: Sequence[str]) -> str:
    """Returns a text in which each path of `files` is replaced by the name of the file.

    Copies of what is in a bucket are named by their addresses.
    """
    text = addresses.shown(text)
    for path in files:
        name = pathlib.Path(path).name
        text = text.replace(shlex.quote(path), shlex.quote(name)).replace(path, name)
    return text


def box_between(corner: tuple[int, int], opposite: tuple[int, int]) -> str:
    """Returns the smallest box that holds two pixels, as `--box` takes it.

    Args:
        corner: row and column of a pixel.
        opposite: row and column of another pixel, or of the same.
    """
    (top, bottom), (left, right) = (sorted(pair) for pair in zip(corner, opposite, strict=True))
    return f"{top},{left},{bottom - top + 1},{right - left + 1}"
