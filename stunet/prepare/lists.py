"""Reads lists of videos: text, CSV, JSON lines and Parquet files, row by row."""

import csv
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stunet import jsonfiles
from stunet.errors import UserError, closest
from stunet.prepare.caption_files import join_lines
from stunet.prepare.entries import Entry, Input
from stunet.stores import addresses

# Columns of a list. Only the first must be there.
_COLUMNS = ("path", "caption", "start", "end")

Rows = Iterator[tuple[str, dict[str, Any]]]


def read(file: Path) -> Input:
    """Returns the videos that a list names.

    Paths are relative to the folder of the list, or absolute, or addresses in buckets. A text file
    has one path in each line. The other kinds of files have the columns `path` and, if they like,
    `caption`, `start` and `end`, which are seconds. Other columns are ignored. In JSON lines and
    Parquet files, a caption may be a list of captions.

    Raises:
        UserError: the list is empty, has no column `path`, or cannot be understood.
    """
    rows = functools.partial(KINDS[file.suffix.lower()], file)
    entries = functools.partial(_entries, rows)
    if next(entries(), None) is None:
        raise UserError(f"{file} lists no video; write one path in each row")
    return Input(file.parent, entries)


def _entries(rows: Callable[[], Rows]) -> Iterator[Entry]:
    for place, row in rows():
        path = row.get("path")
        if not isinstance(path, str) or not path.strip():
            raise UserError(f"{place}: the path is {path!r}; write the path of a video")
        try:
            addresses.local(path.strip())
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        start, end = (_seconds(row.get(name), name, place) for name in ("start", "end"))
        if start is not None and end is not None and start >= end:
            raise UserError(
                f"{place}: start is {start:g} and end {end:g}; a stretch ends after its start"
            )
        yield Entry(path.strip(), _captions(row.get("caption"), place), start, end)


def _captions(value: Any, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{place}: the caption is {value!r}; write a text, or a list of texts")
    return tuple(text for text in map(join_lines, texts) if text)


def _seconds(value: Any, name: str, place: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{place}: {name} is {value!r}; write seconds, such as 12.5, or nothing")
    return seconds


def _text_rows(file: Path) -> Rows:
    with _opened(file) as lines:
        for number, line in enumerate(_decoded(lines, file), 1):
            if line.strip():
                yield f"{file}, line {number}", {"path": line.strip()}


def _csv_rows(file: Path) -> Rows:
    with _opened(file) as lines:
        reader = csv.reader(_decoded(lines, file), strict=True)
        header: list[str] | None = None
        begin = 1
        try:
            for fields in reader:
                place, begin = f"{file}, line {begin}", reader.line_num + 1
                if not fields:
                    continue
                if header is None:
                    header = [field.strip() for field in fields]
                    _check_columns(place, header)
                elif len(fields) != len(header):
                    raise UserError(
                        f"{place}: {len(fields)} fields, and the header has {len(header)} "
                        f"({','.join(header)}); put a caption with a comma into double quotes"
                    )
                else:
                    yield place, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise UserError(f"{file}, line {begin}: not CSV ({error})") from error


def _json_rows(file: Path) -> Rows:
    with _opened(file) as lines:
        for number, line in enumerate(_decoded(lines, file), 1):
            if line.strip():
                place = f"{file}, line {number}"
                row = jsonfiles.parse(line, jsonfiles.Object, place)
                _check_columns(place, list(row))
                yield place, row


def _parquet_rows(file: Path) -> Rows:
    # Imported here, because only this kind of list needs it.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            _check_columns(str(file), names)
            number = 0
            columns = [name for name in _COLUMNS if name in names]
            for batch in table.iter_batches(batch_size=4096, columns=columns):
                for row in batch.to_pylist():
                    yield f"{file}, row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} cannot be read as Parquet ({reason})") from error


KINDS: dict[str, Callable[[Path], Rows]] = {
    ".txt": _text_rows,
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".parquet": _parquet_rows,
}


def _opened(file: Path):
    # Reading a pipe would wait for its writer, and the list is read twice.
    if not file.is_file():
        raise UserError(f"{file} is no regular file")
    return file.open("rb")


def _decoded(lines, file: Path) -> Iterator[str]:
    """Yields the lines of a file as text. Only line feeds end a line."""
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file}, line {number} is not UTF-8 text") from error


def _check_columns(place: str, names: list[str]) -> None:
    """Raises a UserError if there is no column `path`, or a column is there twice."""
    for name in _COLUMNS:
        if names.count(name) > 1:
            raise UserError(f"{place}: the column {name!r} is there twice; name it once")
    if "path" not in names:
        near = closest("path", names) or next((n for n in names if n in _OTHER_NAMES), None)
        hint = f"; rename {near!r} to 'path'" if near else ""
        raise UserError(
            f"{place}: the column 'path' is missing; there is {', '.join(map(repr, names))}{hint}"
        )


# What other lists call the path of a video.
_OTHER_NAMES = ("file", "filename", "file_name", "video", "video_path", "videos")
