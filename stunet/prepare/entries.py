"""Describes what is prepared: entries of a list, in parts of which each becomes one shard."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from stunet import paths
from stunet.prepare.places import Member, Place
from stunet.stores import addresses


@dataclasses.dataclass(frozen=True)
class Entry:
    """Names one video, or a stretch of one.

    Attributes:
        path: path of the file, relative to the folder or the list that names it, or absolute; or
            its address in a bucket.
        captions: captions of the video. There may be none.
        start: second of the video at which the stretch begins; None for the beginning.
        end: second of the video at which the stretch ends; None for the end.
        member: name of the video within the file, if the file is a tar file; otherwise "".
        offset: byte of the tar file at which the video begins.
        size: size of the video in bytes.
    """

    path: str
    captions: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    member: str = ""
    offset: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """Returns the name of the entry for messages, such as "a.mp4 from 2 to 5 s"."""
        name = f"{self.path}/{self.member}" if self.member else self.path
        if self.start is None and self.end is None:
            return name
        end = "its end" if self.end is None else f"{self.end:g} s"
        return f"{name} from {self.start or 0:g} s to {end}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Returns what tells the entry from all others: everything but its captions."""
        return self.path, self.member, repr(self.start), repr(self.end)

    def file(self, root: str) -> Path:
        """Returns the path of the video's file, or of the tar file that holds it.

        Args:
            root: folder to which the path is relative, or its address.
        """
        if paths.has_scheme(self.path):
            return addresses.local(self.path)
        return addresses.local(root) / self.path

    def place(self, root: str) -> Place:
        """Returns the place of the video.

        Args:
            root: folder to which the path is relative, or its address.
        """
        path = self.file(root)
        return Member(path, self.member, self.offset, self.size) if self.member else path


@dataclasses.dataclass(frozen=True)
class Part:
    """Holds the entries that become one shard.

    Attributes:
        number: number of the part and of its shard, counted from 0.
        root: folder to which the entries' paths are relative, or its address in a bucket, of which
            each machine has a copy of its own.
        entries: the videos, in order.
    """

    number: int
    root: str
    entries: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Input:
    """Holds the videos that a command is given.

    Attributes:
        root: folder to which the entries' paths are relative.
        entries: function that yields the entries, in the same order in each call.
        notes: sentences for the user about the input.
    """

    root: Path
    entries: Callable[[], Iterator[Entry]]
    notes: tuple[str, ...] = ()
