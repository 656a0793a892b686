"""Gathers what the manifests of all shards say, in arrays that millions of shots fit into."""

import array
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from stunet.prepare import parts
from stunet.prepare.filters import Columns
from stunet.prepare.shards import Manifest, Video, read_manifest


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Holds the measures of all shots, and the sizes of the shards.

    Attributes:
        columns: the measures.
        records: number of shots in each shard.
        bytes: size of each shard's file.
        words: number of words of each caption, which is counted once in each shard.
    """

    columns: Columns
    records: Int64[np.ndarray, "m"]
    bytes: Int64[np.ndarray, "m"]
    words: Int32[np.ndarray, "c"]


def gather(output: Path, see: Callable[[Manifest], None]) -> Gathered:
    """Reads all manifests of a set.

    Args:
        output: directory of the set of shots.
        see: is called with each manifest, in order.
    """
    numbers = {name: array.array("i") for name in ("frames", "height", "width")}
    measures = {name: array.array("f") for name in ("motion", "brightness", "contrast")}
    hashes, videos, records, sizes = bytearray(), array.array("q"), array.array("q"), []
    words = array.array("i")
    for part in parts.read(output):
        manifest = read_manifest(output, part.number)
        see(manifest)
        for name, column in (numbers | measures).items():
            column.extend(getattr(row, name) for row in manifest.shots)
        hashes += b"".join(bytes.fromhex(row.hash) for row in manifest.shots)
        for entry, video in zip(part.entries, manifest.videos, strict=True):
            videos.extend([_number(entry.path, entry.member)] * video.shots)
        records.append(len(manifest.shots))
        sizes.append(manifest.bytes)
        words.extend(len(caption.split()) for caption in manifest.captions if caption)
    columns = Columns(
        **{name: np.array(column, np.int32) for name, column in numbers.items()},
        **{name: np.array(column, np.float32) for name, column in measures.items()},
        hash=np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 32),
        video=np.array(videos, np.int64),
    )
    return Gathered(
        columns,
        np.array(records, np.int64),
        np.array(sizes, np.int64),
        np.array(words, np.int32),
    )


def locate(output: Path, gathered: Gathered, shot: int) -> tuple[int, int, Video, float]:
    """Returns where a shot is.

    Args:
        output: directory of the set of shots.
        gathered: what the manifests say.
        shot: number of the shot.

    Returns:
        The number of the shard, the number of the record in the shard, the video, and the second
        of the video at which the shot begins.
    """
    ends = np.cumsum(gathered.records)
    shard = int(np.searchsorted(ends, shot, side="right"))
    record = shot - int(ends[shard] - gathered.records[shard])
    manifest = read_manifest(output, shard)
    of_videos = np.cumsum([video.shots for video in manifest.videos])
    video = manifest.videos[int(np.searchsorted(of_videos, record, side="right"))]
    return shard, record, video, manifest.shots[record].begin


def _number(*texts: str) -> int:
    digest = hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
