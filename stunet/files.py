"""Files appear whole or not at all; a full or forbidden disk is answered in one sentence."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from stunet.errors import UserError

# The outcome of a full disk for what is written whole or not at all.
_NOTHING_LEFT = "nothing is left there: free some space and run the same command again"


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A path beside `path` that takes its name if the block succeeds, or disappears."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path, refusal: str) -> Iterator[int | None]:
    """Within: no other process has `directory` locked. Gives a descriptor, which holds the lock for
    a child too that inherits it; None where the file system locks no directories.

    Raises:
        UserError: another has; it says `refusal`.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(refusal) from error
        except OSError:  # As of some network file systems.
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def user_cache(what: str) -> Path:
    """The directory of what is kept for the user between runs, in the cache that XDG names."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stunet" / what


def check_vacant(directory: Path) -> None:
    """Raises: UserError, if there is something where a new directory is to be; an empty one may
    be."""
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise UserError(f"{directory} exists already; remove it or choose another place")


@contextlib.contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """A new directory beside `directory` that takes its name if the block succeeds, or disappears.

    Raises:
        UserError: there is something at `directory`, nothing may be created beside it, or the disk
            is full.
    """
    check_vacant(directory)
    directory = directory.absolute()
    partial = directory.parent / f".{directory.name}.partial-{os.getpid()}"
    with (
        full_disk_explained(directory.parent, _NOTHING_LEFT),
        refusal_explained(directory, "choose a place in which you may create directories"),
    ):
        partial.mkdir(parents=True)
    try:
        with full_disk_explained(directory.parent, _NOTHING_LEFT):
            yield partial
            partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def full_disk_explained(place: Path, outcome: str) -> Iterator[None]:
    """Within: running out of space becomes a UserError.

    Args:
        place: what was being written, on the disk that is full.
        outcome: what became of it, and what to do now.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not _is_disk_full(error):
            raise
        raise UserError(f"the disk that holds {place} is full; {outcome}") from error


@contextlib.contextmanager
def refusal_explained(place: Path, remedy: str) -> Iterator[None]:
    """Within: what the system refuses, but for lack of space, becomes a UserError.

    Args:
        place: what was to be written.
        remedy: what to do instead.
    """
    try:
        yield
    except OSError as error:
        if _is_disk_full(error):
            raise
        raise UserError(f"cannot write {place} ({error.strerror or error}); {remedy}") from error


def _is_disk_full(error: Exception) -> bool:
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in codes:
        return True
    # TensorStore and ArrayRecord quote the system's message in exceptions of their own.
    return any(os.strerror(code) in str(error) for code in codes)
