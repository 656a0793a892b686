"""Finds the videos in tar files, as WebDataset lays them out.

A sample is a run of neighbouring files that have the same name up to the first dot: `a/0001.mp4`
with `a/0001.txt`, or with `a/0001.json` and its key `caption`. Nothing is unpacked: a video is read
from its place in the tar file.
"""

import contextlib
import functools
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.prepare.caption_files import join_lines
from stunet.prepare.entries import Entry, Input
from stunet.prepare.kinds import VIDEOS, Kind
from stunet.stores import objects
from stunet.stores.addresses import address

# Larger text files are no captions.
_MOST_TEXT = 2**20


def read(root: Path, files: Sequence[Path], kind: Kind = VIDEOS) -> Input:
    """Returns the videos in some tar files.

    Args:
        root: folder to which the paths of the tar files become relative.
        files: the tar files.
        kind: kind of the members to read: videos or pictures.

    Raises:
        UserError: a tar file is damaged or compressed, or no tar file holds a video.
    """
    entries = functools.partial(_entries, root, files, kind)
    if next(entries(), None) is None:
        raise UserError(f"{files[0]} and others hold {kind.none()}")
    return Input(root, entries)


def _entries(root: Path, files: Sequence[Path], kind: Kind) -> Iterator[Entry]:
    for file in files:
        try:
            with _opened(file) as content, tarfile.open(fileobj=content, mode="r:") as archive:
                yield from _of_archive(file.relative_to(root).as_posix(), archive, kind)
        except (tarfile.TarError, EOFError) as error:
            raise UserError(
                f"{file} cannot be read as a tar file ({error}); a compressed one must be "
                "decompressed first"
            ) from error


def _opened(file: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    return objects.opened(where) if (where := address(file)) else file.open("rb")


def _of_archive(path: str, archive: tarfile.TarFile, kind: Kind) -> Iterator[Entry]:
    key, sample = None, []
    for member in archive:
        if not member.isreg() or member.issparse():
            continue
        name = PurePosixPath(member.name)
        own = name.parent / name.name.partition(".")[0]
        if own != key:
            yield from _of_sample(path, archive, sample, kind)
            key, sample = own, []
        sample.append(member)
        archive.members = []  # Otherwise the archive remembers every member.
    yield from _of_sample(path, archive, sample, kind)


def _of_sample(path: str, archive: tarfile.TarFile, sample, kind: Kind) -> Iterator[Entry]:
    """Yields an entry for each video of a sample."""
    parts = {PurePosixPath(member.name).suffix.lower(): member for member in sample}
    captions = _captions(path, archive, parts)
    for member in sample:
        if kind.matches(member.name):
            place = (member.name, member.offset_data, member.size)
            yield Entry(path, captions, None, None, *place)


def _captions(path: str, archive: tarfile.TarFile, parts) -> tuple[str, ...]:
    for suffix in (".txt", ".json"):
        member = parts.get(suffix)
        if member is None or member.size > _MOST_TEXT:
            continue
        place = f"{path}/{member.name}"
        content = archive.extractfile(member).read()
        if suffix == ".json":
            found = jsonfiles.parse(content, jsonfiles.Object, place).get("caption")
            texts = found if isinstance(found, list) else [found]
            texts = [text for text in texts if isinstance(text, str)]
        else:
            try:
                texts = [content.decode("utf-8-sig")]
            except UnicodeDecodeError as error:
                raise UserError(f"{place} is not UTF-8 text (byte {error.start})") from error
        return tuple(text for text in map(join_lines, texts) if text)
    return ()
