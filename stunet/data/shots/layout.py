"""Names the files of a set of shots, and reads and writes those that describe the set.

shots.json            how the shots were made (`Spec`)
lists/                which videos each part holds
shards/000000.array_record, .json
                      the shots of part 0 (`stunet.data.shots.records`), and its manifest
text/ENCODER/         text states of the captions, one file for each shard
latents/AUTOENCODER/  latents of the pictures, one file for each shard
index.safetensors     length and size of every shot (`Index`); written last, before latents
shots.html            page about the set (`stunet.report.shots`)
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from stunet import jsonfiles, tensorfiles
from stunet.data.shots.codecs import Codec, make_codec
from stunet.errors import UserError
from stunet.files import atomic
from stunet.stores import large

SPEC_FILE = "shots.json"
INDEX_FILE = "index.safetensors"
# Number of the layout, raised when a program that knows the old one would read the new one wrongly.
FORMAT = 1

_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


@dataclasses.dataclass(frozen=True)
class Spec:
    """Says how the shots of a set are made from videos.

    Attributes:
        side: largest height or width, whichever is smaller, of a shot's pictures. Larger pictures
            are shrunk.
        fps: frames per second of every shot.
        min_seconds: shots shorter than this are left out.
        max_seconds: a longer stretch of video is split into several shots.
        cut_threshold: how much a cut stands out from the changes around it
            (`stunet.prepare.cuts.with_cuts`); 0 looks for no cuts.
        crop_bars: black bars around the pictures are cut off.
        codec: name of the codec.
        quality: quality of the codec.
        group: pictures in each group of the codec.
        format: number of the layout.
    """

    side: _Size = 256
    fps: _Positive = 24.0
    min_seconds: _Positive = 1.0
    max_seconds: _Positive = 20.0
    cut_threshold: Annotated[float, msgspec.Meta(ge=0, le=255)] = 6.0
    crop_bars: bool = False
    codec: str = "h264"
    quality: int = 18
    group: int = 8
    format: int = FORMAT

    def make_codec(self) -> Codec:
        """Returns the codec of the shots.

        Raises:
            UserError: the name is unknown, or a setting is out of range.
        """
        return make_codec(self.codec, self.quality, self.group)


def read_spec(directory: Path) -> Spec:
    """Reads how the shots of a set were made.

    Raises:
        UserError: the file is damaged, or a newer version of this program made the shots.
    """
    file = directory / SPEC_FILE
    spec = jsonfiles.read(file, Spec)
    if spec.format != FORMAT:
        raise UserError(
            f"{file} has the format {spec.format}, and this version of stunet reads {FORMAT}; "
            "prepare the videos again, or install the version that made it"
        )
    return spec


def holds_shots(directory: Path) -> bool:
    """Tells whether a directory is a set of shots."""
    return (directory / SPEC_FILE).is_file()


def describes(name: str) -> bool:
    """Tells whether a file of a set, named relative to it, says what the set holds.

    The other files, which hold the shots, their text states and their latents, are the large ones.
    """
    return name == INDEX_FILE or name.endswith((".json", ".jsonl", ".html"))


def is_opened(name: str) -> bool:
    """Tells whether a set is opened with a file, named relative to it, before shots are read."""
    is_note = name.startswith(("text/", "latents/")) and name.endswith(".json")
    return name in (SPEC_FILE, INDEX_FILE) or is_note


def holds_latents(name: str) -> bool:
    """Tells whether a file of a set, named relative to it, is about latents."""
    return name.startswith("latents/")


def shard_file(directory: Path, part: int) -> Path:
    """Returns the path of the file that holds the shots of a part."""
    return directory / "shards" / f"{part:06d}.array_record"


def manifest_file(directory: Path, part: int) -> Path:
    """Returns the path of the manifest of a part. A part is done when this file exists."""
    return directory / "shards" / f"{part:06d}.json"


def remove_states_and_latents(directory: Path, part: int) -> None:
    """Removes the text states and the latents of a part, of every encoder."""
    for pattern in (f"text/*/{part:06d}.array_record", f"latents/*/{part:06d}.safetensors"):
        large.remove(directory, large.sizes(directory, pattern))


@dataclasses.dataclass(frozen=True)
class Index:
    """Describes every shot of a set, in the order of the shards.

    Videos that are added later come at the end, so the number of a shot never changes.

    Attributes:
        frames: number of pictures of each shot, int32 [n]; 0 for a shot that a filter drops.
        height: rows of each shot's pictures, int32 [n].
        width: columns of each shot's pictures, int32 [n].
        held_out: number of pictures at the end of each shot that are kept for validation,
            int32 [n].
        records: number of shots in each shard, int64 [m].
        bytes: size of each shard's file, int64 [m].
    """

    frames: np.ndarray
    height: np.ndarray
    width: np.ndarray
    held_out: np.ndarray
    records: np.ndarray
    bytes: np.ndarray


_SHOTS = ("frames", "height", "width", "held_out")
_SHARDS = ("records", "bytes")


def write_index(directory: Path, index: Index) -> None:
    """Writes the index of a set of shots, whole or not at all."""
    with atomic(directory / INDEX_FILE) as file:
        tensorfiles.write(file, vars(index))


def read_index(directory: Path) -> Index:
    """Reads the index of a set of shots.

    Raises:
        UserError: `prepare` has not finished, or the file is damaged.
    """
    file = directory / INDEX_FILE
    if not file.is_file():
        raise UserError(
            f"{directory} is not complete: {INDEX_FILE} is missing; run the same `stunet prepare` "
            "again, and it goes on where it stopped"
        )
    found = {}
    for names, dtype in ((_SHOTS, np.int32), (_SHARDS, np.int64)):
        for name in names:
            found[name] = _column(file, name, np.dtype(dtype))
    index = Index(**found)
    is_whole = len({len(found[name]) for name in _SHOTS}) == len({len(index.records)}) == 1
    if not is_whole or len(index.records) != len(index.bytes):
        raise _damaged(file, "its columns have different lengths")
    if index.records.min(initial=0) < 0 or index.records.sum() != len(index.frames):
        raise _damaged(file, "its shards do not hold as many shots as it lists")
    sizes = np.stack([index.height, index.width])
    rest = index.frames - index.held_out
    if sizes.min(initial=1) < 1 or min(x.min(initial=0) for x in (index.held_out, rest)) < 0:
        raise _damaged(file, "it lists a shot of an impossible size")
    return index


def _column(file: Path, name: str, dtype: np.dtype) -> np.ndarray:
    header = tensorfiles.headers(file).get(name)
    wanted = {"int32": "I32", "int64": "I64"}[dtype.name]
    if header is None or header.dtype != wanted or len(header.shape) != 1:
        raise _damaged(file, f"it has no column {name} of {dtype.name}")
    with tensorfiles.tensor(file, name) as column:
        return column[:]


def _damaged(index: Path, reason: str) -> UserError:
    return UserError(
        f"{index} is damaged: {reason}; run the same `stunet prepare` again, which writes it again"
    )
