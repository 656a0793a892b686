"""Writes clips as a TFDS data set in ArrayRecord files, split into training and validation."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from stunet.data.records import METADATA_FILE
from stunet.prepare.caption_files import escape_surrogates
from stunet.prepare.cutting import CutVideo
from stunet.prepare.opening import CorruptVideo

# Lists what became of each video. It is a file of its own, apart from the metadata, because only
# people read it and it may be large.
VIDEOS_FILE = "videos.json"


class ClipWriter:
    """Writes examples into a new data set, which is readable after `close`."""

    def __init__(self, directory: Path, name: str, shard_bytes: int):
        """Creates a writer for a new data set.

        Args:
            directory: an existing empty directory.
            name: name of the data set, for TFDS.
            shard_bytes: size in bytes at which a new record file begins.
        """
        self._directory, self._name, self._shard_bytes = directory, name, shard_bytes
        self._lengths = collections.defaultdict(list)
        self._sizes = collections.defaultdict(int)
        self._open = {}

    def write(self, split: str, example: Mapping[str, str | np.ndarray]) -> None:
        """Appends one example to a split. All examples must have the same keys and shapes."""
        feature = {
            key: tf_feature_pb2.Feature(
                bytes_list=tf_feature_pb2.BytesList(
                    value=[value.encode() if isinstance(value, str) else value.tobytes()]
                )
            )
            for key, value in example.items()
        }
        features = tf_feature_pb2.Features(feature=feature)
        record = tf_example_pb2.Example(features=features).SerializeToString()
        if split not in self._open:
            path = self._shard(split, len(self._lengths[split]))
            options = "group_size:1,uncompressed"
            self._open[split] = array_record_module.ArrayRecordWriter(str(path), options), 0
            self._lengths[split].append(0)
        file, size = self._open[split]
        file.write(record)
        size += len(record)
        self._open[split] = file, size
        self._lengths[split][-1] += 1
        self._sizes[split] += len(record)
        if size >= self._shard_bytes:
            self._close_shard(split)

    def close(self, shape: tuple[int, ...], text_shape: tuple[int, ...] | None) -> int:
        """Completes the record files and writes TFDS's description of them.

        Args:
            shape: (t, h, w, c) of the clips.
            text_shape: (l, d) of the text states, or None if the examples have none.

        Returns:
            The size of all record files in bytes.
        """
        for split in list(self._open):
            self._close_shard(split)
        infos = []
        for split, lengths in sorted(self._lengths.items()):
            for i in range(len(lengths)):
                self._shard(split, i).rename(self._shard(split, i, len(lengths)))
            size = self._sizes[split]
            infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        tfds.folder_dataset.write_metadata(
            data_dir=self._directory,
            features=_features(shape, text_shape),
            split_infos=infos,
            check_data=False,
            description=f"Clips cut by stunet; {METADATA_FILE} says how, {VIDEOS_FILE} from what.",
        )
        return sum(path.stat().st_size for path in self._directory.glob("*.array_record-*"))

    def _close_shard(self, split: str) -> None:
        # ArrayRecord writes in the background and reports a full disk here, not in `write`.
        self._open.pop(split)[0].close()

    def _shard(self, split: str, index: int, count: int | None = None) -> Path:
        of = "" if count is None else f"-of-{count:05d}"
        return self._directory / f"{self._name}-{split}.array_record-{index:05d}{of}"


@dataclasses.dataclass
class WrittenVideos:
    """Records what became of each video.

    Attributes:
        written: one dict for each video in the records: its `file`, its `caption`, and the number
            of its clips in each split (`train`, `val`).
        skipped: name of each video that could not be decoded, and the reason.
        too_short: names of videos that do not fill one clip.
        notes: maps the name of a video to a note for the user about the video.
        dropped_frames: number of frames of all videos that are in no clip.
        text_shape: (l, d) of the text states; None if captions are not encoded.
    """

    written: list[dict] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    too_short: list[str] = dataclasses.field(default_factory=list)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped_frames: int = 0
    text_shape: tuple[int, int] | None = None


def write_videos(
    videos: Iterable[tuple[str, CutVideo | CorruptVideo, str, Mapping[str, np.ndarray]]],
    writer: ClipWriter,
    val_fraction: float | int,
) -> WrittenVideos:
    """Writes the clips of each video and holds out the last clips for validation.

    If a video's share of held-out clips is not a whole number, the remainder is added to the share
    of the next video. Each file of raw clips is deleted after its clips are written.

    Args:
        videos: for each video, a tuple of its path, its clips or the error of reading it, its
            caption and its encoded caption.
        writer: writer of the data set.
        val_fraction: share of the clips that is held out, in [0, 1).
    """
    result = WrittenVideos()
    # Clips still to be held out. Starting at 1 - val_fraction holds out a clip of the first video
    # that has clips to spare.
    val_due = 1 - val_fraction if val_fraction else 0.0
    for path, cut, caption, encoded in videos:
        name = escape_surrogates(path)
        if isinstance(cut, CorruptVideo):
            result.skipped[name] = escape_surrogates(str(cut))
            continue
        result.dropped_frames += cut.dropped_frames
        if cut.notes:
            result.notes[name] = f"{name}: {'; '.join(cut.notes)}"
        if not cut.num_clips:
            result.too_short.append(name)
            cut.file.unlink()
            continue
        val_due += val_fraction * cut.num_clips
        # At least one clip is trained on. The sum of fractions may be below a whole number by a
        # rounding error.
        num_val = min(math.floor(val_due + 1e-9), cut.num_clips - (not result.written))
        val_due -= num_val
        num_train = cut.num_clips - num_val
        for i, clip in enumerate(cut.clips()):
            split = "train" if i < num_train else "val"
            example = {"video": clip, "source": f"{name}#{i}", "caption": caption, **encoded}
            writer.write(split, example)
        cut.file.unlink()
        if encoded:
            result.text_shape = encoded["text"].shape
        result.written.append(
            {"file": name, "caption": caption, "train": num_train, "val": num_val}
        )
    return result


def _features(shape, text_shape) -> tfds.features.FeaturesDict:
    """Describes the fields of an example to TFDS."""
    features = {
        "video": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
        "caption": tfds.features.Text(),
        "source": tfds.features.Text(doc="the video, and which of its clips this is"),
    }
    if text_shape is not None:
        length, dim = text_shape
        features |= {
            "text": tfds.features.Tensor(shape=(length, dim), dtype=np.float32, encoding="bytes"),
            "text_mask": tfds.features.Tensor(shape=(length,), dtype=np.bool_, encoding="bytes"),
        }
    return tfds.features.FeaturesDict(features)
