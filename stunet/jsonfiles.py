"""Reads JSON that others may have written or damaged, and checks that it has the expected type.

The program reads every JSON file with these functions. Their argument `kind` is a type that
`msgspec` can check, such as `dict[str, float]`, a dataclass or a `msgspec.Struct`.
"""

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from stunet.errors import UserError

T = TypeVar("T")

# An object of which the caller checks the keys.
Object = dict[str, Any]
# A number that is neither NaN nor infinite.
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


# Files of this program nest five levels at most, and readers of what they hold call themselves.
_MOST_LEVELS = 100
_TOO_DEEP = "{} is damaged: its lists or objects are nested too deep"


class Lines(NamedTuple):
    """Holds the lines of a file with one JSON value in each line.

    Attributes:
        values: value and text of each line that could be read, in the order of the file.
        damaged: numbers of the lines that could not be read, counted from 1.
    """

    values: list[tuple[Any, str]]
    damaged: list[int]


def read(file: Path, kind: type[T]) -> T:
    """Reads a JSON file.

    Args:
        file: the file, in UTF-8.
        kind: type of the file's content.

    Raises:
        UserError: the file cannot be read, or its content is no JSON of the type `kind`.
    """
    return parse(_contents(file), kind, str(file))


def parse(content: bytes | str, kind: type[T], place: str) -> T:
    """Parses JSON.

    Args:
        content: the JSON; bytes are UTF-8.
        kind: type of the content.
        place: where the JSON comes from, for messages.

    Raises:
        UserError: the content is no JSON of the type `kind`.
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        found = json.loads(text, object_pairs_hook=_no_key_twice)
    except UnicodeDecodeError as error:
        raise UserError(f"{place} is damaged: byte {error.start} is not UTF-8 text") from error
    except RecursionError as error:
        raise UserError(_TOO_DEEP.format(place)) from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error})") from error
    if _is_deep(found):
        raise UserError(_TOO_DEEP.format(place))
    return convert(found, kind, place)


def convert(found: Any, kind: type[T], place: str) -> T:
    """Converts a value that was read from JSON to the type `kind`.

    Args:
        found: the value.
        kind: the type.
        place: where the value comes from, for messages.

    Raises:
        UserError: the value does not have the type `kind`.
    """
    try:
        return msgspec.convert(found, kind, strict=True)
    except msgspec.ValidationError as error:
        # As in "Expected `int`, got `null` - at `$.step`", where "$" is the whole content.
        what, _, path = str(error).replace("`", "").partition(" - at $")
        where = f" at {path.removeprefix('.')!r}" if path else ""
        raise UserError(f"{place} is damaged: {what[0].lower()}{what[1:]}{where}") from error
    except UnicodeEncodeError as error:
        # From msgspec, where half of a surrogate pair stands in the place of another type.
        raise UserError(f"{place} is damaged: it holds text that is not Unicode") from error


def read_lines(file: Path, kind: type[T], accepts: Callable[[T], bool] | None = None) -> Lines:
    """Reads a file that holds one JSON value in each line.

    Args:
        file: the file, in UTF-8.
        kind: see `parse_lines`.
        accepts: see `parse_lines`.

    Raises:
        UserError: the file cannot be read.
    """
    return parse_lines(_contents(file), kind, accepts)


def parse_lines(content: bytes, kind: type[T], accepts: Callable[[T], bool] | None = None) -> Lines:
    """Parses lines of text that each hold one JSON value. Empty lines are left out.

    Args:
        content: the lines, in UTF-8.
        kind: type of each value.
        accepts: function that returns False for a value that has the type but makes no sense. The
            line of this value then counts as damaged. None accepts every value of the type.
    """
    values, damaged = [], []
    # `splitlines` would also split at characters that JSON allows inside of texts.
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse(line, kind, f"line {number}")
        except UserError:
            damaged.append(number)
            continue
        if accepts is None or accepts(value):
            values.append((value, line.decode("utf-8-sig")))
        else:
            damaged.append(number)
    return Lines(values, damaged)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return found


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            part
            for parts in level
            if isinstance(parts, dict | list)
            for part in (parts.values() if isinstance(parts, dict) else parts)
        ]
    return bool(level)


def _contents(file: Path) -> bytes:
    try:
        # Reading a pipe would wait for its writer.
        if not stat.S_ISREG(file.stat().st_mode):
            what = "a directory" if file.is_dir() else "no regular file"
            raise UserError(f"{file} is {what}; move it away, or put the right file there")
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
