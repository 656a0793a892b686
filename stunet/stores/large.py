"""Handles large files of buckets, of which this machine holds only the one that it works on.

All functions take paths, which may be copies of what is in a bucket (`addresses.local`) or not, so
that their callers need not tell one from the other.
"""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Iterator

from stunet.stores import objects
from stunet.stores.addresses import address


class Loans:
    """Fetches objects into a directory, one at a time. A context manager.

    At its end, or when another object is asked for, the one fetched before is removed.

    Attributes:
        directory: existing directory, in which temporary ones are made.
    """

    def __init__(self, directory: pathlib.Path):
        self.directory, self._held = directory, None
        self._file: pathlib.Path | None = None

    def get(self, path: pathlib.Path, begin: int = 0, size: int | None = None) -> pathlib.Path:
        """Returns a path at which a file, or a part of it, can be read now.

        Args:
            path: a file, or the copy of an object. A path that is no copy of a bucket's is returned
                as it is, whatever the part.
            begin: first byte of the object to fetch.
            size: number of bytes; None for all to the object's end.

        Raises:
            Missing: there is no such object.
            UserError: the bucket cannot be read.
        """
        if not address(path):
            return path
        if self._held != (path, begin, size):
            self.close()
            folder = tempfile.mkdtemp(prefix=".fetched.partial-", dir=self.directory)
            self._file = pathlib.Path(folder, path.name)
            if size is None:
                objects.fetch(address(path), self._file)
            else:
                objects.fetch_part(address(path), self._file, begin, size)
            self._held = path, begin, size
        return self._file

    def close(self) -> None:
        """Removes the file that was fetched last."""
        if self._file is not None:
            shutil.rmtree(self._file.parent, ignore_errors=True)
        self._held = self._file = None

    def __enter__(self) -> "Loans":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def hand_over(file: pathlib.Path) -> None:
    """Uploads a finished file to its bucket and removes it from this machine.

    A file that belongs in no bucket stays where it is.

    Raises:
        UserError: the bucket cannot be written.
    """
    if where := address(file):
        objects.put(where, file)
        file.unlink()


def sizes(directory: pathlib.Path, pattern: str) -> dict[pathlib.Path, int]:
    """Returns the sizes in bytes of the files of a directory, or of its bucket, that are there.

    Args:
        directory: the directory.
        pattern: glob of the files, relative to the directory. Its first part has no wildcard.
    """
    if not (where := address(directory)):
        return {path: path.stat().st_size for path in directory.glob(pattern)}
    # Only what lies below the first part of the pattern is listed: the rest may be much.
    first, _, rest = pattern.partition("/")
    depth = len(pathlib.PurePath(rest).parts)
    return {
        directory / first / name: entry.size
        for name, entry in objects.listing(f"{where}/{first}").items()
        if len(pathlib.PurePath(name).parts) == depth and pathlib.PurePath(name).match(rest)
    }


def remove(directory: pathlib.Path, files: Collection[pathlib.Path]) -> None:
    """Removes files of a directory, or of its bucket."""
    if where := address(directory):
        objects.remove(where, [file.relative_to(directory).as_posix() for file in files])
    for file in files:
        file.unlink(missing_ok=True)


def any_exists(paths: Collection[pathlib.Path]) -> bool:
    """Tells whether at least one of some files, or of some objects, is there."""
    return any(
        objects.is_object(where) if (where := address(path)) else path.exists() for path in paths
    )


@contextlib.contextmanager
def lent(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context manager that yields a path at which a file or object can be read."""
    if not address(path):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Loans(path.parent) as loans:
        yield loans.get(path)
