"""Finds videos and their captions, and encodes the captions."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stunet.errors import UserError
from stunet.prepare.opening import VIDEO_SUFFIXES

# Captions in each call of the text encoder.
_BATCH_SIZE = 64

EncodeText = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


def find_videos(directory: Path) -> dict[str, str]:
    """Finds all videos below `directory` and the caption of each.

    Captions come from `captions.jsonl` in `directory`, one `{"file": "a.mp4", "caption": "..."}` on
    each line, or from `captions.csv` with the columns `file` and `caption`. A video that neither
    file names takes its caption from a text file beside it: `a.txt` for `a.mp4`. Without a text
    file the caption is empty.

    In a caption file, write a file name that is not UTF-8 as `escape_surrogates` does:
    `caf\\udce9.mp4`.

    Returns:
        The caption of each video, by the video's path relative to `directory`. The paths are
        sorted, so that two runs agree.

    Raises:
        UserError: `directory` does not exist, it holds no video, or a caption file cannot be
            understood.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}")
    paths = [
        path
        for path in sorted(directory.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    ]
    if not paths:
        raise UserError(
            f"{directory} holds no video; videos are files that end in {', '.join(VIDEO_SUFFIXES)}"
        )
    listed, listing = _read_caption_file(directory)
    captions = {}
    for path in paths:
        name = path.relative_to(directory).as_posix()
        text_file = path.with_suffix(".txt")
        if escape_surrogates(name) not in listed and text_file.is_file():
            captions[name] = _join_lines(_read_utf8(text_file))
        else:
            captions[name] = listed.get(escape_surrogates(name), "")
    # If no listed path matches, the paths start at another folder and every caption would be lost.
    if listed and not listed.keys() & set(map(escape_surrogates, captions)):
        raise UserError(
            f"{listing} names {next(iter(listed))!r} and others, but {directory} holds none of"
            f" them; write paths relative to that folder, such as {next(iter(captions))!r}"
        )
    return captions


def encode_captions(
    captions: Sequence[str], encode_text: EncodeText | None
) -> Iterator[dict[str, np.ndarray]]:
    """Encodes captions in batches. Each batch holds a repeated caption only once.

    Args:
        captions: one caption for each video.
        encode_text: encodes n captions to states float32 [n, l, d] and mask bool [n, l]; None
            encodes nothing.

    Yields:
        `text` [l, d] and `text_mask` [l] of each caption in turn, or an empty dict without
        `encode_text`.
    """
    for begin in range(0, len(captions), _BATCH_SIZE):
        batch = captions[begin : begin + _BATCH_SIZE]
        if encode_text is None:
            yield from ({} for _ in batch)
            continue
        rows = {caption: i for i, caption in enumerate(dict.fromkeys(batch))}
        states, mask = encode_text(list(rows))
        for caption in batch:
            yield {"text": states[rows[caption]], "text_mask": mask[rows[caption]]}


def escape_surrogates(text: str) -> str:
    """Replaces characters that UTF-8 cannot encode by escapes, as in `caf\\udce9.mp4`.

    Python reads bytes of file names that are not UTF-8 as halves of surrogate pairs. JSON can hold
    such halves too.
    """
    return text.encode(errors="backslashreplace").decode()


def _read_caption_file(directory: Path) -> tuple[dict[str, str], Path | None]:
    """Returns the captions by file name, and the file that lists them, if there is one."""
    for name, read_rows in (("captions.jsonl", _json_rows), ("captions.csv", _csv_rows)):
        path = directory / name
        if path.is_file():
            captions = {}
            for line, row in read_rows(path):
                fields = (row.get("file"), row.get("caption")) if isinstance(row, dict) else ()
                if not fields or not all(isinstance(field, str) for field in fields):
                    raise UserError(f"{path}, line {line}: expected texts 'file' and 'caption'")
                video, caption = fields
                captions[escape_surrogates(Path(video).as_posix())] = _join_lines(caption)
            return captions, path
    return {}, None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    # `splitlines` would also split at characters that JSON allows inside of texts.
    for line, text in enumerate(_read_utf8(path).split("\n"), 1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {line}: not JSON ({error.msg})") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict]]:
    # newline="" keeps line ends, which a quoted caption may hold.
    reader = csv.DictReader(io.StringIO(_read_utf8(path), newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        # DictReader's own line number counts complete rows only.
        raise UserError(f"{path}, line {reader.reader.line_num}: not CSV ({error})") from error


def _read_utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _join_lines(text: str) -> str:
    return escape_surrogates(" ".join(text.split()))
