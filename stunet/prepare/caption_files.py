"""Reads a file of captions, and finds the video that each row names."""

import collections
import csv
import dataclasses
import io
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stunet import jsonfiles
from stunet.errors import UserError

NAMES = ("captions.jsonl", "captions.csv")
_COLUMNS = ("file", "caption")


@dataclasses.dataclass(frozen=True)
class Row:
    """Holds a row of a caption file.

    Attributes:
        line: number of the line at which the row begins.
        file: path of the video, as written in the row.
        caption: the caption, which may have several lines.
    """

    line: int
    file: str
    caption: str


def read(path: Path) -> list[Row]:
    """Reads all rows of a caption file: JSON lines if its suffix is ".jsonl", otherwise CSV.

    Raises:
        UserError: the file cannot be understood.
    """
    return list(_json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path))


def match(
    path: Path, rows: Sequence[Row], directory: Path, videos: Sequence[str]
) -> tuple[dict[str, str], list[Row]]:
    """Finds the video that each row names.

    A row names a video by its path relative to the folder, or by its absolute path. The path may
    have backslashes for slashes, and a letter with an accent may be one Unicode character or two.

    Args:
        path: the caption file, for messages.
        rows: rows of the caption file.
        directory: folder of the videos.
        videos: paths of the videos, relative to the folder.

    Returns:
        A dict from the path of each named video to the video's caption, joined to one line, and a
        list of the rows that name no video.

    Raises:
        UserError: no row names a video; two rows give one video different captions; a row and a
            video's path differ only in upper and lower case; or a quotation mark is not closed, so
            that the next row was read as part of a caption.
    """
    exact = {escape_surrogates(video): video for video in videos}
    alike = _by_key(videos, _normal)
    captions: dict[str, str] = {}
    lines: dict[str, int] = {}
    unmatched = []
    for row in rows:
        _check_swallowed(path, row, exact)
        written = escape_surrogates(row.file)
        name = _relative(written, directory)
        found = exact.get(written) or exact.get(name) or alike.get(_normal(name))
        if found is None:
            unmatched.append(row)
            continue
        caption = join_lines(row.caption)
        if captions.setdefault(found, caption) != caption:
            raise UserError(
                f"{path}, lines {lines[found]} and {row.line}: both name {row.file!r}, with "
                "different captions; give each video one row"
            )
        lines.setdefault(found, row.line)
    # Without any match the paths start at another folder, and every caption would be lost.
    if rows and not captions:
        raise UserError(
            f"{path} names {rows[0].file!r} and others, but {directory} holds none of them; write "
            f"paths relative to that folder, such as {videos[0]!r}"
        )
    bare = _by_key([video for video in videos if video not in captions], _folded)
    for row in unmatched:
        if meant := bare.get(_folded(_relative(row.file, directory))):
            raise UserError(
                f"{path}, line {row.line}: {row.file!r} differs from the video {meant!r} in upper "
                "and lower case; write it as the file is called"
            )
    return captions, unmatched


def escape_surrogates(text: str) -> str:
    """Writes escapes for characters that UTF-8 cannot encode, as in `caf\\udce9.mp4`.

    In file names that are not UTF-8, Python reads some bytes as halves of surrogate pairs. JSON can
    hold such halves too.
    """
    return text.encode(errors="backslashreplace").decode()


def join_lines(text: str) -> str:
    """Returns a caption on one line, with single spaces."""
    return escape_surrogates(" ".join(text.split()))


def read_utf8(path: Path) -> str:
    """Reads a text file, with or without a byte order mark.

    Raises:
        UserError: the file is not UTF-8, or cannot be read.
    """
    # Reading a pipe would wait for its writer.
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read {path} (it is no regular file)")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error


def _relative(name: str, directory: Path) -> str:
    """Returns a video's path, relative to `directory` if it lies there, and without ".." or "."."""
    for start in (directory.absolute(), directory.resolve()):
        try:
            return Path(name).relative_to(start).as_posix()
        except ValueError:
            continue
    return posixpath.normpath(name) if name else name


def _normal(name: str) -> str:
    """Returns a path with slashes between folders, and with accents as one character (NFC)."""
    return unicodedata.normalize("NFC", posixpath.normpath(name.replace("\\", "/")))


def _folded(name: str) -> str:
    return _normal(name).casefold()


def _by_key(videos: Sequence[str], key) -> dict[str, str]:
    """Maps keys to videos, and leaves out keys that several videos share.

    Args:
        videos: paths of the videos.
        key: maps the path of a video to its key.
    """
    counts = collections.Counter(key(escape_surrogates(video)) for video in videos)
    keys = {key(escape_surrogates(video)): video for video in videos}
    return {name: video for name, video in keys.items() if counts[name] == 1}


def _check_swallowed(path: Path, row: Row, videos: dict[str, str]) -> None:
    """Raises a UserError if a later line of a row's caption begins with the name of a video.

    If a quotation mark is not closed, CSV reads the next row as part of the caption.
    """
    for number, line in enumerate(row.caption.splitlines()[1:], row.line + 1):
        if line.partition(",")[0] in videos:
            raise UserError(
                f"{path}, line {row.line}: the quote that opens here is not closed in its line, "
                f"and the caption goes on to line {number}, which names a video"
            )


def _json_rows(path: Path) -> Iterator[Row]:
    # `splitlines` would also split at characters that JSON allows inside of texts.
    for line, text in enumerate(read_utf8(path).split("\n"), 1):
        if not text.strip():
            continue
        entry = jsonfiles.parse(text, Any, f"{path}, line {line}")
        fields = [entry.get(key) for key in _COLUMNS] if isinstance(entry, dict) else []
        if not fields or not all(isinstance(field, str) for field in fields):
            keys = f"; its keys are {', '.join(map(str, entry))}" if isinstance(entry, dict) else ""
            raise UserError(f"{path}, line {line}: expected texts 'file' and 'caption'{keys}")
        yield Row(line, *fields)


def _csv_rows(path: Path) -> Iterator[Row]:
    # newline="" keeps line ends, which a quoted caption may hold. strict=True makes an error of a
    # quote that is never closed, which would take all rows below it for one caption.
    reader = csv.reader(io.StringIO(read_utf8(path), newline=""), strict=True)
    begin, header = 1, None
    try:
        for fields in reader:
            line, begin = begin, reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = _checked_header(path, line, fields)
                continue
            if len(fields) != len(header):
                raise UserError(
                    f"{path}, line {line}: {len(fields)} fields, and the header has {len(header)} "
                    f"({','.join(header)}); put a caption with a comma into double quotes"
                )
            yield Row(line, *(fields[header.index(column)] for column in _COLUMNS))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {begin}: not CSV ({error}); a double quote that opens a caption is "
            "closed by another one, and is written twice inside of it"
        ) from error


def _checked_header(path: Path, line: int, fields: list[str]) -> list[str]:
    if any(fields.count(column) != 1 for column in _COLUMNS):
        raise UserError(
            f"{path}, line {line}: the header is {','.join(fields)!r}; it must name the columns "
            "file and caption, once each and separated by commas: file,caption"
        )
    return fields
