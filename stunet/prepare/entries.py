"""Describes what is prepared: entries of a list, in parts of which each becomes one shard."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from stunet.prepare.finding import FoundVideos


@dataclasses.dataclass(frozen=True)
class Entry:
    """Names one video.

    Attributes:
        path: path of the video, relative to the folder or the list that names it, or absolute.
        captions: captions of the video. There may be none.
    """

    path: str
    captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
    """Holds the entries that become one shard.

    Attributes:
        number: number of the part and of its shard, counted from 0.
        root: folder to which the entries' paths are relative.
        entries: the videos, in order.
    """

    number: int
    root: Path
    entries: tuple[Entry, ...]


def of_folder(found: FoundVideos) -> Iterator[Entry]:
    """Yields an entry for each video of a folder."""
    for path, caption in found.captions.items():
        yield Entry(path, (caption,) if caption else ())
