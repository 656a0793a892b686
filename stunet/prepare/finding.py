"""Finds the videos of a folder and the caption of each."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from stunet.errors import UserError
from stunet.prepare import caption_files
from stunet.prepare.caption_files import escape_surrogates
from stunet.prepare.kinds import VIDEOS, Kind
from stunet.stores import mirror, objects
from stunet.stores.addresses import address

# Entries of each kind that a note names.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class FoundVideos:
    """Holds the videos of a folder.

    Attributes:
        captions: the caption of each video, by the video's path relative to the folder. The paths
            are sorted, so that two runs agree.
        notes: sentences for the user about captions and about files that are not read.
    """

    captions: dict[str, str]
    notes: tuple[str, ...] = ()


def find_videos(directory: Path, kind: Kind = VIDEOS) -> FoundVideos:
    """Finds all videos below `directory`, which may be in a bucket, and the caption of each.

    Videos are files of a kind (`kinds`), which may be pictures, in `directory` or in folders below.
    Symbolic links to files and folders are followed. Files and folders whose names begin with a dot
    are left out.

    Captions come from one file in `directory`: `captions.jsonl`, with a line
    `{"file": "a.mp4", "caption": "..."}` for each video, or `captions.csv` with the header
    `file,caption`. Further keys and columns are ignored. Paths are relative to `directory`. A video
    that the file does not name takes its caption from a text file beside it: `a.txt` for `a.mp4`.
    Without a text file the caption is empty.

    In a caption file, write a file name that is not UTF-8 as `escape_surrogates` does:
    `caf\\udce9.mp4`.

    Raises:
        UserError: `directory` does not exist, it holds no video, or a caption file cannot be
            understood (`caption_files`).
    """
    files, regular = _of_bucket(directory) if address(directory) else _of_disk(directory)
    videos = {
        path.relative_to(directory).as_posix(): path
        for path in files
        if kind.matches(path) and not path.name.startswith(".") and path in regular
    }
    if not videos:
        raise UserError(f"{directory} holds {kind.none()}")
    file = _caption_file(directory, files)
    rows = caption_files.read(file) if file else []
    listed, unmatched = (
        caption_files.match(file, rows, directory, list(videos)) if file else ({}, [])
    )
    texts = {name: path.with_suffix(".txt") for name, path in videos.items()}
    texts = {name: path for name, path in texts.items() if path in regular}
    written = {
        name: caption_files.join_lines(caption_files.read_utf8(path))
        for name, path in texts.items()
    }
    captions = {name: listed.get(name, written.get(name, "")) for name in videos}
    unused = [name for name in written if captions[name] != written[name]]
    bare = [name for name, caption in captions.items() if not caption]
    read = {*videos.values(), *texts.values(), file}
    others = [path.relative_to(directory) for path in files if path not in read]
    notes = (
        _note("row(s) of the caption file name no video here", [row.file for row in unmatched]),
        _note("text file(s) are not used, because the caption file names their videos", unused),
        _note("video(s) have no caption", bare if file or texts else []),
        *_of_other_files(others, kind),
    )
    return FoundVideos(captions, tuple(filter(None, notes)))


def _of_disk(directory: Path) -> tuple[list[Path], set[Path]]:
    """Returns what lies below a folder, sorted, and which of it are files or lead to files."""
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}")
    files = sorted(_files(directory))
    return files, {path for path in files if path.is_file()}


def _of_bucket(directory: Path) -> tuple[list[Path], set[Path]]:
    """Does what `_of_disk` does for a folder in a bucket, and fetches the captions."""
    names = objects.listing(address(directory))
    if not names:
        raise UserError(f"there is no folder {directory}")
    mirror.pull(directory, only=_may_hold_captions)
    hidden = (name for name in names if not any(p.startswith(".") for p in name.split("/")[:-1]))
    files = sorted(directory / name for name in hidden)
    return files, set(files)


def _may_hold_captions(name: str) -> bool:
    return name.endswith(".txt") or name in caption_files.NAMES


def _files(directory: Path) -> Iterator[Path]:
    """Yields the files below a folder. A folder that several links lead to is read only once."""
    seen, places = set(), collections.deque([directory])
    while places:
        # Real folders come before links to them, so that their files keep their own names.
        for place, folders, files in os.walk(places.popleft()):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = (Path(place, name) for name in folders)
            places.extend(link for link in links if link.is_symlink())
            yield from (Path(place, name) for name in files)


def _caption_file(directory: Path, files: Sequence[Path]) -> Path | None:
    """Returns the caption file of a folder, if it has one.

    Raises:
        UserError: there are several caption files, or one lies in a folder below `directory`.
    """
    found = [path for path in files if path.name in caption_files.NAMES]
    if len(found) > 1 or any(path.parent != directory for path in found):
        raise UserError(
            f"captions come from one file, {' or '.join(caption_files.NAMES)} in {directory}, but "
            f"there is {' and '.join(map(str, found))}; put all rows into one file there, with "
            "paths relative to that folder"
        )
    return found[0] if found else None


def _of_other_files(names: Sequence[Path], kind: Kind) -> Iterator[str]:
    """Yields notes about files that are not read, although the user may expect them to be."""
    videos = [name for name in names if kind.matches(name)]
    hidden = [name for name in names if name.name.startswith(".")]
    yield _note("link(s) lead to no video", [str(n) for n in videos if n not in hidden])
    yield _note("hidden video(s) are not read", [str(n) for n in videos if n in hidden])
    others = [str(name) for name in names if name not in videos and name not in hidden]
    yield _note("other file(s) are not read", others)


def _note(what: str, names: Sequence[str]) -> str:
    """Returns a note about files that gives their number and the first few names.

    Args:
        what: words that follow the number of files in the note, such as "video(s) have no caption".
        names: names of the files. If there are none, the note is "".
    """
    if not names:
        return ""
    shown = ", ".join(map(escape_surrogates, names[:_NAMED]))
    return f"{len(names)} {what}: {shown}{', ...' * (len(names) > _NAMED)}"
