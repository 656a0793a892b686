"""Divides the entries of a list into parts, and writes the parts down.

The parts of a set of shots never change, whatever the number of workers and however often the
command is stopped. Videos that are added later become further parts.
"""

import array
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from stunet import jsonfiles
from stunet.files import atomic
from stunet.prepare.entries import Entry, Input, Part
from stunet.stores import addresses

# A stopped command loses the parts in progress, so they are small. A run opens every shard, so
# there are not too many: this many parts, unless one would hold more videos than the second number.
_PARTS, _MOST_VIDEOS = 256, 256


class _Line(msgspec.Struct, frozen=True):
    """Describes one line of a file of parts."""

    root: str
    entries: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Says what became of the entries of a list.

    Attributes:
        parts: number of all parts.
        videos: number of all videos in them.
        added: number of videos that were added now.
        changed: number of videos that were there before, with other captions.
        repeated: number of entries that an earlier entry of the list names too.
    """

    parts: int
    videos: int
    added: int
    changed: int
    repeated: int


def extend(output: Path, given: Input) -> Plan:
    """Adds a part for each run of entries that no part holds yet.

    An entry is the same as another one if path, start and end are. The path is relative, so that a
    folder may be moved.

    Args:
        output: directory of the set of shots.
        given: the entries.
    """
    parts, there = 0, (array.array("Q"), array.array("Q"))
    for part in read(output):
        parts += 1
        _add_digests(there, part.entries)
    listed = array.array("Q"), array.array("Q")
    _add_digests(listed, given.entries())
    names, wholes = map(np.asarray, listed)
    is_known = np.isin(names, there[0])
    changed = int((is_known & ~np.isin(wholes, there[1])).sum())
    is_first = np.zeros(len(names), bool)
    is_first[np.unique(names, return_index=True)[1]] = True
    is_new = is_first & ~is_known
    added = int(is_new.sum())
    repeated = int((~is_first & ~is_known).sum())
    if added:
        size = min(_MOST_VIDEOS, max(1, added // _PARTS))
        directory = output / "lists"
        with (
            atomic(directory / f"{len(_files(output)):06d}.jsonl") as partial,
            partial.open("w") as file,
        ):
            for some in _batches(itertools.compress(given.entries(), is_new), size):
                parts += 1
                root = addresses.portable(given.root)
                line = {"root": root, "entries": list(map(_as_json, some))}
                file.write(json.dumps(line) + "\n")
    return Plan(parts, len(there[0]) + added, added, changed, repeated)


def read(output: Path) -> Iterator[Part]:
    """Yields the parts of a set of shots in order.

    Raises:
        UserError: a file of parts is damaged.
    """
    number = 0
    for path in _files(output):
        with path.open(encoding="utf-8") as file:
            for count, text in enumerate(file, 1):
                line = jsonfiles.parse(text, _Line, f"{path}, line {count}")
                yield Part(number, line.root, line.entries)
                number += 1


def _files(output: Path) -> list[Path]:
    return sorted((output / "lists").glob("*.jsonl"))


def _as_json(entry: Entry) -> dict:
    """Returns the attributes of an entry that differ from their defaults."""
    fields = dataclasses.fields(Entry)
    values = {field.name: (getattr(entry, field.name), field.default) for field in fields}
    return {name: value for name, (value, default) in values.items() if value != default}


def _digest(*texts: str) -> int:
    """Returns 64 bits that tell texts apart, to remember millions of paths in little memory."""
    text = json.dumps(texts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def _add_digests(columns: tuple[array.array, array.array], entries: Iterable[Entry]) -> None:
    """Adds digests of entries to two columns: without and with the entries' captions."""
    for entry in entries:
        columns[0].append(_digest(*entry.identity))
        columns[1].append(_digest(*entry.identity, *entry.captions))


def _batches(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    batch = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
