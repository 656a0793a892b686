"""Turns one part of a list into a shard: a file of shots, and its manifest."""

import hashlib
import json
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from array_record.python import array_record_module

from stunet import jsonfiles
from stunet.data.shots.layout import (
    Spec,
    manifest_file,
    remove_states_and_latents,
    shard_file,
)
from stunet.data.shots.records import Shot, pack, unpack
from stunet.errors import UserError
from stunet.files import atomic, full_disk_explained
from stunet.prepare.caption_files import escape_surrogates
from stunet.prepare.entries import Entry, Part
from stunet.prepare.places import Place, fetched
from stunet.prepare.shots import Tally, encode_shots
from stunet.prepare.stretches import Stretch
from stunet.stores import addresses
from stunet.stores.large import Loans, any_exists, hand_over, lent
from stunet.stores.objects import Missing

# Bytes of one video's shots that wait in memory until the video has proved to be undamaged. More
# bytes wait in a file.
_IN_MEMORY = 64 * 2**20
# What a sentence about a full disk says.
_DISK_IS_FULL = "the shards that are done stay", ", and it goes on"
_Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
# Number of the format of manifests, raised when a program that knows the old one would read the new
# one wrongly. Manifests of format 1 hold no measures of shots. They state no number, and neither do
# the first ones of format 2.
_FORMAT = 2


class OtherFormat(UserError):
    """Raised if another version of this program wrote a manifest that this one cannot read."""


class Video(msgspec.Struct, frozen=True):
    """Says what became of a video.

    Attributes:
        path: path of the video, as the list has it.
        captions: number of captions.
        shots: number of shots.
        frames: number of frames at the rate of the shots, also those that are in no shot.
        cuts: number of cuts.
        left_out: number of frames in stretches that are too short for a shot.
        has_bars: True if black bars were cut off.
        skipped: why the video could not be read; "" if it was.
        notes: sentences without their subject, which is the video.
    """

    path: str
    captions: int
    shots: int = 0
    frames: int = 0
    cuts: int = 0
    left_out: int = 0
    has_bars: bool = False
    skipped: str = ""
    notes: tuple[str, ...] = ()


class Done(NamedTuple):
    """Reports that a video is done.

    Attributes:
        video: what became of the video.
        seconds: processor time that it took.
    """

    video: Video
    seconds: float


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Describes a shot.

    Attributes:
        begin: second of the video at which the shot begins.
        frames: number of pictures.
        height: rows of each picture.
        width: columns of each picture.
        motion: see `stunet.prepare.looks.Measures`, as for what follows.
        brightness: mean brightness.
        contrast: mean contrast.
        hash: perceptual hash.
    """

    begin: jsonfiles.Finite
    frames: _Size
    height: _Size
    width: _Size
    motion: jsonfiles.Finite
    brightness: jsonfiles.Finite
    contrast: jsonfiles.Finite
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, frozen=True):
    """Describes a shard.

    Attributes:
        bytes: size of the shard's file.
        sha256: digest of the shard's file, in hexadecimal.
        shots: the shots, in order.
        captions: the captions of the shots, each once.
        videos: the videos of the part, in order.
        format: number of the manifest's format.
    """

    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    sha256: str
    shots: list[Row]
    captions: list[str]
    videos: list[Video]
    format: int = _FORMAT


def write_shard(
    part: Part, broken: Collection[int] = (), *, output: str, spec: Spec
) -> Iterator[Done | Manifest]:
    """Writes the shard of a part. The caller writes the manifest (`write_manifest`).

    If `output` is in a bucket, the shard is uploaded and removed here. Videos in buckets are
    fetched one at a time.

    Text states and latents of an earlier shard of the part are removed first. The bytes depend on
    the videos, their captions and `spec` alone.

    Args:
        part: the videos.
        broken: numbers of videos of the part that are skipped, because the process that decoded
            them died.
        output: directory of the set of shots, or its address.
        spec: how shots are made.

    Yields:
        A `Done` for each video, as soon as it is done, and the `Manifest` when the shard is there.

    Raises:
        UserError: no video of the part is there, or the disk is full.
    """
    directory = addresses.local(output)
    shard = shard_file(directory, part.number)
    _check_there(part)
    # A video that is skipped no more would change which state belongs to which caption, and which
    # latents belong to which shot.
    remove_states_and_latents(directory, part.number)
    rows, captions, videos = [], {}, []
    with (
        full_disk_explained(directory, *_DISK_IS_FULL),
        atomic(shard) as partial,
        Loans(shard.parent) as loans,
    ):
        writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        try:
            for number, entry in enumerate(part.entries):
                began = time.process_time()
                if number in broken:
                    video, shots = _skipped(entry, "the process that decoded it died"), []
                else:
                    video, shots = _encoded(entry, entry.place(part.root), spec, loans)
                texts = [escape_surrogates(text) for text in entry.captions] or [""]
                for row, shot in shots:
                    states = [captions.setdefault(text, len(captions)) for text in texts]
                    writer.write(pack(msgspec.structs.replace(shot, captions=texts, states=states)))
                    rows.append(row)
                videos.append(video)
                yield Done(video, time.process_time() - began)
        finally:
            # ArrayRecord writes in the background and reports a full disk here.
            writer.close()
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = partial.stat().st_size
    hand_over(shard)
    yield Manifest(size, digest, rows, list(captions), videos)


def write_manifest(output: Path, part: int, manifest: Manifest) -> None:
    """Writes the manifest of a part whose shard is there. It makes the part done.

    Raises:
        UserError: the disk is full.
    """
    file = manifest_file(output, part)
    with full_disk_explained(output, *_DISK_IS_FULL), atomic(file) as partial:
        partial.write_text(json.dumps(msgspec.to_builtins(manifest)) + "\n")


class _Numbered(msgspec.Struct, frozen=True):
    """Holds the number that a manifest states; None if it states none."""

    format: int | None = None


def read_manifest(output: Path, part: int) -> Manifest:
    """Reads the manifest of a part.

    Raises:
        OtherFormat: another version of this program wrote the manifest, in a format of its own.
        UserError: the manifest is missing or damaged.
    """
    file = manifest_file(output, part)
    found = jsonfiles.read(file, jsonfiles.Object)
    number = jsonfiles.convert(found, _Numbered, str(file)).format
    if number is None:
        number = 1 if {"frames", "height", "width"} <= found.keys() else _FORMAT
    if number == _FORMAT:
        return jsonfiles.convert(found, Manifest, str(file))
    if number < _FORMAT:
        age = "an earlier"
        remedy = (
            f"remove {file.parent}/*.json and run the same command, which makes the shots again"
        )
    else:
        age, remedy = "a later", "install that version"
    raise OtherFormat(
        f"{file} has the format {number}, which {age} version of stunet wrote, and this version "
        f"reads {_FORMAT}; {remedy}, or choose another directory"
    )


def is_done(output: Path, part: int, sizes: Mapping[Path, int]) -> bool:
    """Tells whether the shard of a part is there, with a size that its manifest confirms.

    Args:
        output: directory of the set of shots.
        part: number of the part.
        sizes: size of each shard that is there, by its path.

    Raises:
        OtherFormat: another version of this program wrote the manifest, in a format of its own.
    """
    if not manifest_file(output, part).is_file():
        return False
    try:
        return read_manifest(output, part).bytes == sizes.get(shard_file(output, part))
    except OtherFormat:
        raise
    except UserError:
        return False


def is_whole(output: Path, part: int) -> bool:
    """Tells whether the shard of a part has the digest that its manifest states.

    Raises:
        OtherFormat: another version of this program wrote the manifest, in a format of its own.
    """
    try:
        manifest = read_manifest(output, part)
    except OtherFormat:
        raise
    except UserError:
        return False
    try:
        with lent(shard_file(output, part)) as shard, shard.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == manifest.sha256
    except (Missing, FileNotFoundError):
        return False


def _check_there(part: Part) -> None:
    """Raises a UserError if none of several videos is there: a disk that is not mounted, say."""
    paths = [entry.file(part.root) for entry in part.entries]
    if len({*paths}) > 1 and not any_exists(paths):
        raise UserError(
            f"there is no file {paths[0]}, nor any of the {len(paths) - 1} listed after it; mount "
            "the disk that holds them, or correct the list, and run the same command again"
        )


def _encoded(
    entry: Entry, place: Place, spec: Spec, loans: Loans
) -> tuple[Video, Iterable[tuple[Row, Shot]]]:
    """Encodes the shots of a video. A video that cannot be read to its end gives no shot.

    Raises:
        UserError: the bucket that holds the video cannot be read. Another try may succeed.
    """
    try:
        here = fetched(place, loans)
    except Missing as error:
        return _skipped(entry, str(error)), ()
    tally, name = Tally(), escape_surrogates(entry.name)
    waiting = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=loans.directory)  # noqa: SIM115
    rows, sizes = [], []
    try:
        stretch = Stretch(entry.start, entry.end)
        for shot in encode_shots(here, stretch, spec, tally):
            record = pack(Shot(name, shot.begin, [""], [0], shot.height, shot.width, shot.packets))
            waiting.write(record)
            sizes.append(len(record))
            size = len(shot.packets), shot.height, shot.width
            rows.append(Row(shot.begin, *size, **vars(shot.measures)))
    except UserError as error:
        waiting.close()
        reason = str(error).replace(str(here), str(place))
        return _skipped(entry, addresses.shown(reason)), ()
    video = Video(
        name,
        len(entry.captions),
        len(rows),
        tally.frames,
        tally.cuts,
        tally.left_out,
        tally.has_bars,
        notes=tuple(tally.notes()),
    )
    return video, zip(rows, _read_back(waiting, sizes), strict=True)


def _read_back(waiting, sizes: list[int]) -> Iterator[Shot]:
    with waiting:
        waiting.seek(0)
        for size in sizes:
            yield unpack(waiting.read(size))


def _skipped(entry: Entry, reason: str) -> Video:
    return Video(
        escape_surrogates(entry.name), len(entry.captions), skipped=escape_surrogates(reason)
    )
