"""Files appear whole or not at all; a full or forbidden disk is answered in one sentence."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from stunet.errors import UserError

# The outcome of a full disk for what is written whole or not at all.
NOTHING_LEFT = "nothing is left there: free some space and run the same command again"


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
def atomic_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path` that takes its name if the block succeeds, or disappears.

    Raises:
        UserError: there is something at `path`, or nothing may be created beside it.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there already; choose a directory that is not")
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    with refusal_explained(path, "choose a place in which you may create directories"):
        partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(path)
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
