"""Keeps shards of data sets in buckets on this machine, each from when it is first read.

All shards together take at most `limit` bytes. The one that was opened longest ago makes room for
another, in whichever process. A set that is larger than that is better read in place, record by
record.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence

from stunet.errors import UserError
from stunet.files import atomic, full_disk_explained, user_cache
from stunet.stores import objects
from stunet.stores.addresses import address

# Environment variable with the limit in GiB, and its default.
LIMIT, DEFAULT_LIMIT = "STUNET_SHARD_CACHE_GIB", 100.0


def limit() -> int:
    """Returns the number of bytes that all kept shards together may take.

    Raises:
        UserError: the environment variable `LIMIT` is no number of at least 0.
    """
    text = os.environ.get(LIMIT, "")
    try:
        gib = float(text or DEFAULT_LIMIT)
        if gib < 0:
            raise ValueError
        return int(gib * 2**30)
    except (ValueError, OverflowError):
        raise UserError(f"{LIMIT} is {text!r}; set it to a number of GiB, such as 50") from None


class Shelf:
    """Gives the places at which some shards in buckets can be opened.

    Attributes:
        sizes: number of bytes of each shard that is in its bucket.
        in_place: True if few records are read, or the set is too large to be kept. Then records are
            better read in the bucket.
    """

    def __init__(self, files: Sequence[pathlib.Path], once: bool = False):
        """Looks up the shards in their buckets.

        Args:
            files: copies of the shards (`addresses.local`), none of which need be there.
            once: True if few records are read.

        Raises:
            UserError: a bucket cannot be read.
        """
        self._tags = {}
        self.sizes = {}
        for folder in {file.parent for file in files}:
            for name, entry in objects.listing(address(folder)).items():
                self._tags[folder / name] = entry.tag
                self.sizes[folder / name] = entry.size
        self._limit = limit()
        self.in_place = once or sum(self.sizes.get(file, 0) for file in files) > self._limit

    @contextlib.contextmanager
    def lent(self, file: pathlib.Path) -> Iterator[str]:
        """Context manager in which a shard is kept, and can be opened at the path that is yielded.

        What is open stays readable after the context.

        Raises:
            UserError: the bucket cannot be read, or the disk of the cache is full.
        """
        kept = self._kept(file)
        while True:
            with _one_at_a_time(kept):
                if not kept.exists():
                    self._fetch(file, kept)
            try:
                descriptor = os.open(kept, os.O_RDONLY)
            except FileNotFoundError:  # Another process has removed it.
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if os.fstat(descriptor).st_nlink:
                    os.utime(descriptor)
                    yield str(kept)
                    return
            finally:
                os.close(descriptor)

    def _kept(self, file: pathlib.Path) -> pathlib.Path:
        # Another content of the object has another tag, and so another name.
        text = f"{address(file)} {self._tags[file]}"
        name = f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:24]}{file.suffix}"
        return user_cache("shards") / name

    def _fetch(self, file: pathlib.Path, kept: pathlib.Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        outcome = f"lower {LIMIT}, which is {self._limit / 2**30:g}, or"
        with _one_at_a_time(kept.parent):
            _make_room(kept.parent, self._limit - self.sizes[file])
        with full_disk_explained(kept.parent, outcome), atomic(kept) as partial:
            objects.fetch(address(file), partial)


@functools.cache
def _one_at_a_time(path: pathlib.Path) -> threading.Lock:
    """Returns the lock of a path, which threads of this process hold one after the other."""
    return threading.Lock()


def _make_room(folder: pathlib.Path, most: int) -> None:
    """Removes the shards that were opened longest ago, until at most `most` bytes are left."""
    found = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError), file.open("rb") as opened:
            # A process is about to open it.
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
            total -= size
