"""Writes files whole or not at all, and explains why a file cannot be written."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from stunet.errors import UserError

# What to do about an error of the file system, by its number.
_REMEDIES = {
    errno.EACCES: "choose a place that you may read and write, or ask for the permission",
    errno.EPERM: "choose a place that you may read and write, or ask for the permission",
    errno.EROFS: "choose a place in which you may create files",
    errno.EISDIR: "a directory is in the place of this file; move it away",
    errno.ENOTDIR: "a file is in the place of this directory; move it away",
    errno.EEXIST: "a file is in the place of this directory; move it away",
    errno.ENOTEMPTY: "a directory is in the place of this file; move it away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a symbolic link in this path leads back to itself; remove it",
    errno.EIO: "the disk or network share that holds it fails; check it",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -Hn)",
}

# Number of an error of a disk that takes no more data -> what is wrong, and what to do about it.
_DISK = {
    errno.ENOSPC: ("the disk that holds {} is full", "free some space"),
    errno.EDQUOT: ("your share of the disk that holds {} is full", "free some space"),
    errno.EFBIG: (
        "a file in {} becomes larger than a file may be",
        "raise the limit (ulimit -f), or choose another disk,",
    ),
}

# The end of a message of TensorStore: a path, and the number of the system's error. Names that are
# no text are escaped.
_TENSORSTORE = re.compile(r"""\"([^"\\]+)[^"]*": [^"]*\[os_error_code='(\d+)'""")
# What Orbax adds to the name of a checkpoint that is unfinished.
UNFINISHED_CHECKPOINT = ".orbax-checkpoint-tmp"

# What became of a directory that is written whole or not at all.
_NOTHING_LEFT = "no unfinished files are left"


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Context manager for a file that is written whole or not at all.

    Yields:
        The path of a temporary file beside `path`, to write to. If the block succeeds, the
        temporary file is renamed to `path`. If the block fails, the temporary file is removed, and
        `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if str(partial) not in (error.filename, error.filename2):
            raise
        # The user does not know the other name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path, refusal: str = "") -> Iterator[int | None]:
    """Context manager that locks a directory, so that no other process can lock it.

    Args:
        directory: the directory to lock.
        refusal: message of the error if another process holds the lock; "" to wait for it instead.

    Yields:
        A file descriptor. A child process that inherits the descriptor holds the lock too. If the
        file system cannot lock directories, None is yielded, and there is no lock.

    Raises:
        UserError: another process holds the lock.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError as error:
            raise UserError(refusal) from error
        except OSError:  # Some network file systems cannot lock directories.
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def user_cache(what: str) -> Path:
    """Returns the directory that caches files of the kind `what` for the user between runs.

    The directory lies in $XDG_CACHE_HOME or, by default, in ~/.cache.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stunet" / what


def check_vacant(directory: Path) -> None:
    """Checks that the path `directory` is free for a new directory, or is an empty directory.

    Raises:
        UserError: `directory` is a file or holds files.
    """
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise UserError(f"{directory} exists already; remove it or choose another place")


@contextlib.contextmanager
def atomic_directory(directory: Path) -> Iterator[Path]:
    """Context manager for a new directory that is written whole or not at all.

    Yields:
        The path of a temporary directory beside `directory`, to write to. If the block succeeds,
        the temporary directory is renamed to `directory`. If the block fails, the temporary
        directory is removed.

    Raises:
        UserError: `directory` is a file or holds files, this process may not create files beside
            `directory`, or the disk is full.
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
def full_disk_explained(place: Path, outcome: str, again: str = "") -> Iterator[None]:
    """Context manager that turns an error of a disk that takes no more data into a UserError.

    Such a disk is full, its quota is used up, or a file is too large for it. Only writing raises
    these errors, so they are about the disk that holds `place`.

    Args:
        place: file or directory that the block writes.
        outcome: middle of the message. It says what became of the files.
        again: end of the message. It says what running the command again does.
    """
    try:
        yield
    except Exception as error:
        number = None if isinstance(error, UserError) else _disk_error(error)
        if number is None:
            raise
        what, remedy = _DISK[number]
        raise UserError(
            f"{what.format(place)}; {outcome}: {remedy} and run the same command again{again}"
        ) from error


@contextlib.contextmanager
def refusal_explained(place: Path, remedy: str) -> Iterator[None]:
    """Context manager that turns errors of the file system into a UserError.

    Errors that `full_disk_explained` explains are raised as they are.

    Args:
        place: file or directory that the block writes.
        remedy: end of the message. It says what to do instead.
    """
    try:
        yield
    except OSError as error:
        if _disk_error(error):
            raise
        raise UserError(f"cannot write {place} ({error.strerror or error}); {remedy}") from error


def check_writable(directory: Path, remedy: str) -> None:
    """Checks that files can be made in a directory, which need not exist yet.

    Args:
        directory: the directory.
        remedy: end of the message. It says what to do instead.

    Raises:
        UserError: `directory` or one of its parents is a file, or files may not be made in
            `directory`.
    """
    whole = directory.absolute()
    there = next(path for path in (whole, *whole.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"cannot write {directory}: {there} is a file; {remedy}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {directory} (Permission denied at {there}); {remedy}")


@contextlib.contextmanager
def refusals_explained() -> Iterator[None]:
    """Context manager that turns errors of the file system into a UserError.

    Commands run inside this context, so that users see a sentence instead of a traceback. In some
    places `refusal_explained` or `full_disk_explained` gives a more precise message first.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        # Writing to an open file fails without its name.
        if number := _disk_error(error):
            what, remedy = _DISK[number]
            name = what.format(path or "the output")
            raise UserError(f"{name}; {remedy} and run the same command again") from error
        if error.errno not in _REMEDIES or not path:
            raise
        raise UserError(f"{path}: {error.strerror}; {_REMEDIES[error.errno]}") from error
    except Exception as error:
        found = _TENSORSTORE.search(str(error))
        if not found or (number := int(found[2])) not in _REMEDIES:
            raise
        path = found[1].partition(UNFINISHED_CHECKPOINT)[0]
        raise UserError(f"{path}: {os.strerror(number)}; {_REMEDIES[number]}") from error


def _disk_error(error: Exception) -> int | None:
    """Returns the number of an error that `_DISK` describes, or None for any other error."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return error.errno
    # TensorStore and ArrayRecord raise exceptions of their own with the message of the system.
    return next((number for number in _DISK if os.strerror(number) in str(error)), None)
