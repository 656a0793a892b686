"""Keeps a directory in a bucket and its copy on this machine alike.

The bucket decides: `pull` makes the copy what the bucket holds, and `push` uploads what changed in
the copy since. `.bucket.json` in the copy notes what both agreed on. A directory that is no copy of
a bucket's is left as it is.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator

from stunet import files, jsonfiles
from stunet.errors import UserError
from stunet.files import atomic, locked, user_cache
from stunet.stores import objects
from stunet.stores.addresses import address, local

_NOTES = ".bucket.json"

# Orbax writes this file into every checkpoint. It is uploaded last and removed first: a checkpoint
# without it is not all there.
_LAST = "_CHECKPOINT_METADATA"

# Directories whose content stays in the bucket, by scheme. Orbax writes them there.
_IN_PLACE = {"gs": ("checkpoints", "snapshots"), "s3": ()}


def place(directory: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the absolute path of the directory `name` in a working directory, for Orbax.

    Args:
        directory: working directory.
        name: "checkpoints" or "snapshots".

    Returns:
        A path in the bucket if the directory is kept there, and else a path of this machine.
    """
    where = address(directory)
    if not where or is_copied(directory, name):
        return (directory / name).absolute()
    from etils import epath

    objects.prepare(where)
    return epath.Path(where) / name


def is_copied(directory: pathlib.Path, name: str) -> bool:
    """Tells whether the directory `name` in a working directory in a bucket has copies.

    Each machine then has a copy of its own.
    """
    where = address(directory)
    return bool(where) and name not in _IN_PLACE[where.partition("://")[0]]


def _all(name: str) -> bool:
    return True


def pull(path: pathlib.Path, only: Callable[[str], bool] = _all) -> None:
    """Makes the copy of an object or directory what the bucket holds.

    While another process of this machine has the directory in use, or one below it, the copy is
    newer than the bucket, and stays as it is.

    Args:
        path: the copy.
        only: tells from an object's name, relative to the directory, whether it gets a copy. What
            the copy holds of other objects stays as it is.

    Raises:
        UserError: the bucket cannot be read, or the disk of the cache has too little room.
    """
    if not address(path):
        return
    with locked(_lock(path, "pull")):
        try:
            with in_use(path, "in use"):
                pass
        except InUse:
            return
        _refresh(path, only)


def refresh(path: pathlib.Path, only: Callable[[str], bool] = _all) -> None:
    """Does what `pull` does, for the process that has the directory `in_use`."""
    with locked(_lock(path, "pull")):
        _refresh(path, only)


@functools.cache
def fetched(text: str, only: Callable[[str], bool] = _all) -> pathlib.Path:
    """Returns the path in `text`. What has an address in a bucket is downloaded, once a process.

    Args:
        text: a path, or an address.
        only: which objects of a directory are downloaded; see `pull`.
    """
    path = local(text)
    pull(path, only)
    return path


def push(path: pathlib.Path, only: Callable[[str], bool] = _all) -> int:
    """Uploads the files of a directory that changed since the last `pull` or `push`.

    Objects whose files are gone are removed. Unfinished files, whose names begin with a dot, are
    left out.

    Args:
        path: the copy.
        only: tells from a file's name, relative to the directory, whether to upload or remove it.

    Returns:
        The number of files uploaded.

    Raises:
        UserError: the bucket cannot be written.
    """
    where = address(path)
    if not where or not path.is_dir():
        return 0
    notes = _read_notes(path)
    there = {name: file for name, file in _files(path, where) if only(name)}
    count = 0
    for name, file in sorted(there.items(), key=lambda item: item[0].endswith(_LAST)):
        try:
            stamp = _stamp(file)
            if name in notes and notes[name][1:] == stamp:
                continue
            # A file that grows meanwhile has another stamp, and is uploaded again the next time.
            notes[name] = [objects.put(f"{where}/{name}", file), *stamp]
        except (FileNotFoundError, UserError):
            if file.exists():
                raise
            continue  # It was removed since it was listed.
        count += 1
        _write_notes(path, notes)
    if gone := {name for name in notes if only(name)} - there.keys():
        objects.remove(where, sorted(gone, key=lambda name: not name.endswith(_LAST)))
        _write_notes(path, {name: note for name, note in notes.items() if name not in gone})
    return count


@contextlib.contextmanager
def kept_alike(paths: Collection[pathlib.Path]) -> Iterator[None]:
    """Context manager that downloads copies before the block, and uploads what changed after it.

    Args:
        paths: files and directories. Those that are no copies of a bucket's are left as they are.
    """
    copies = [path for path in paths if address(path)]
    for path in copies:
        pull(path)
    before = {path: _stamp(path) for path in copies if path.is_file()}
    try:
        yield
    finally:
        for path in copies:
            if not path.is_file():
                push(path)
            elif before.get(path) != _stamp(path):
                objects.put(address(path), path)


def check_vacant(path: pathlib.Path) -> None:
    """Checks that a directory is not there yet, or is empty, on this machine or in its bucket.

    Raises:
        UserError: it holds files.
    """
    where = address(path)
    if where and objects.listing(where):
        raise UserError(f"{where} exists already; remove it or choose another place")
    if not where:
        files.check_vacant(path)


@contextlib.contextmanager
def new_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context manager for a new directory, which may be in a bucket.

    Yields:
        The directory to write to. On a disk it is another one beside `path`, which takes its name
        if the block succeeds. In a bucket it is the copy at `path`. If the block succeeds, it is
        uploaded, and otherwise it is removed, in the bucket too.

    Raises:
        UserError: the directory is there already, or cannot be written.
    """
    if not (where := address(path)):
        with files.atomic_directory(path) as partial:
            yield partial
        return
    check_vacant(path)
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield path
        push(path)
    except BaseException:
        with contextlib.suppress(UserError):
            objects.remove(where, objects.listing(where))
        raise


@contextlib.contextmanager
def in_use(path: pathlib.Path, refusal: str) -> Iterator[None]:
    """Context manager in which no other process of this machine can use a directory like this.

    Args:
        path: copy of the directory.
        refusal: message of the error.

    Raises:
        InUse: another process is in such a context.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_lock(path, "use"), "in use"))
        except UserError as error:
            raise InUse(refusal) from error
        yield


class InUse(UserError):
    """Another process of this machine uses the directory."""


def _lock(path: pathlib.Path, what: str) -> pathlib.Path:
    """Returns a directory that processes lock before they do `what` with a copy."""
    directory = _lock_place(path, what)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _lock_place(path: pathlib.Path, what: str) -> pathlib.Path:
    name = hashlib.sha256(f"{what} {address(path)}".encode()).hexdigest()[:32]
    return user_cache("bucket_locks") / name


def _in_use_below(path: pathlib.Path) -> Iterator[str]:
    """Yields the relative names of the directories below a copy that processes have `in_use`."""
    for folder, folders, _ in os.walk(path):
        for name in folders:
            below = pathlib.Path(folder, name)
            if _lock_place(below, "use").is_dir():  # Otherwise it has never been in use.
                try:
                    with in_use(below, "in use"):
                        pass
                except InUse:
                    yield below.relative_to(path).as_posix()


def _refresh(path: pathlib.Path, only: Callable[[str], bool]) -> None:
    where = address(path)
    found = objects.listing(where)
    busy = tuple(f"{name}/" for name in _in_use_below(path))
    if not found and objects.is_object(where):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as partial:
            objects.fetch(where, partial)
    else:
        _refresh_directory(
            where, path, found, lambda name: only(name) and not name.startswith(busy)
        )


def _refresh_directory(
    where: str,
    path: pathlib.Path,
    found: dict[str, objects.Object],
    only: Callable[[str], bool],
) -> None:
    wanted = {name: o for name, o in found.items() if only(name) and not _stays(name, where)}
    complete = {_checkpoint(name) for name in wanted if name.endswith(_LAST)} | {""}
    wanted = {name: o for name, o in wanted.items() if _checkpoint(name) in complete}
    notes = _read_notes(path) if path.is_dir() else {}
    agreed = {name: note for name, note in notes.items() if not only(name)}
    for name, entry in wanted.items():
        with contextlib.suppress(FileNotFoundError):
            if notes.get(name) == [entry.tag, *_stamp(path / name)]:
                agreed[name] = notes[name]
    missing = {name: entry for name, entry in wanted.items() if name not in agreed}
    _check_room(where, sum(entry.size for entry in missing.values()))
    for name, entry in missing.items():
        # A training may have removed it since it was listed.
        with contextlib.suppress(objects.Missing):
            with atomic(path / name) as partial:
                objects.fetch(f"{where}/{name}", partial)
            agreed[name] = [entry.tag, *_stamp(path / name)]
    for name, file in list(_files(path, where)):
        if name not in agreed and only(name):
            file.unlink()
    if agreed or path.is_dir():
        _write_notes(path, agreed)


def _check_room(where: str, size: int) -> None:
    cache = user_cache("buckets")
    cache.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(cache).free):
        raise UserError(
            f"{where} needs {size / 2**30:.1f} GiB in {cache}, whose disk has "
            f"{free / 2**30:.1f} free; set XDG_CACHE_HOME to a directory on a larger disk"
        )


def _stays(name: str, where: str) -> bool:
    """Tells whether an object has no copy.

    Names that begin with a dot are those of unfinished files and of leases, or would lead out of
    the directory. A sweep's directory has members with checkpoints.
    """
    *folders, last = name.split("/")
    kept = _IN_PLACE[where.partition("://")[0]]
    hidden = any(not part or part.startswith(".") for part in (*folders, last))
    unfinished = any(folder.endswith(files.UNFINISHED_CHECKPOINT) for folder in folders)
    return hidden or unfinished or any(folder in kept for folder in folders)


def _checkpoint(name: str) -> str:
    """Returns the name of the checkpoint that an object belongs to; "" if it belongs to none."""
    parts = name.split("/")
    for i, part in enumerate(parts[:-2]):
        if part in ("checkpoints", "snapshots"):
            return "/".join(parts[: i + 2])
    return ""


def _files(path: pathlib.Path, where: str) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields the relative name and the path of each file in the copy that belongs in the bucket."""
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = pathlib.Path(folder, name)
            relative = file.relative_to(path).as_posix()
            if not _stays(relative, where):
                yield relative, file


def _stamp(file: pathlib.Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


# Name of a file -> the tag of its object, its size and its time.
_Notes = dict[str, list[str | int]]


def _read_notes(path: pathlib.Path) -> _Notes:
    """Reads what the copy and the bucket agreed on. Without notes, all is compared anew."""
    try:
        return jsonfiles.read(path / _NOTES, _Notes)
    except UserError:
        return {}


def _write_notes(path: pathlib.Path, notes: _Notes) -> None:
    with atomic(path / _NOTES) as partial:
        partial.write_text(json.dumps(notes))
