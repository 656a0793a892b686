"""Measures how fast clips are read from records, and what parsing the records costs.

    python benchmarks/read_records.py

The program writes 1,000 synthetic 16x64x64x3 clips (about 225 MB, removed afterwards). It then
reads all of them in random order from a warm file cache on one thread, and prints clips per second.
"""

import argparse
import collections
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from stunet.data.clips import ClipRecords

SHAPE = (16, 64, 64, 3)
TEXT_SHAPE = (16, 384)


class ClipWriter:
    """Writes clips of one shape into a TFDS data set, which is readable after `close`."""

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
            description="Clips of one shape, as stunet wrote them before it stored shots.",
        )
        return sum(path.stat().st_size for path in self._directory.glob("*.array_record-*"))

    def _close_shard(self, split: str) -> None:
        # ArrayRecord writes in the background and reports a full disk here, not in `write`.
        self._open.pop(split)[0].close()

    def _shard(self, split: str, index: int, count: int | None = None) -> Path:
        of = "" if count is None else f"-of-{count:05d}"
        return self._directory / f"{self._name}-{split}.array_record-{index:05d}{of}"


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


def write(directory: Path, clips: int) -> None:
    """Writes noisy checkerboards, each with a caption and token states."""
    rng = np.random.default_rng(0)
    writer = ClipWriter(directory, "clips", shard_bytes=64 * 2**20)
    for i in range(clips):
        squares = np.kron(rng.integers(0, 256, (1, 8, 8, 1)), np.ones((16, 8, 8, 3)))
        video = np.clip(squares + rng.normal(0, 4, SHAPE), 0, 255).astype(np.uint8)
        text = rng.normal(size=TEXT_SHAPE).astype(np.float32)
        mask = np.ones(TEXT_SHAPE[:1], bool)
        example = {"video": video, "caption": f"clip {i}", "text": text, "text_mask": mask}
        writer.write("train", {**example, "source": f"synthetic#{i}"})
    writer.close(SHAPE, TEXT_SHAPE)


def clips_per_second(source, repeats: int = 3) -> float:
    """Returns the best of a few passes, because other programs can only slow a pass down."""
    order = [int(i) for i in np.random.default_rng(1).permutation(len(source))]
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        for i in order:
            source[i]
        best = max(best, len(order) / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000, help="clips to write (default 1000)")
    clips = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, clips)
        sources = {
            "ArrayRecord, bytes only": ArrayRecordDataSource(sorted(directory.glob("*record-*"))),
            "ClipRecords": ClipRecords(directory, "train"),
            "tfds.data_source": tfds.builder_from_directory(directory).as_data_source("train"),
        }
        for label, source in sources.items():
            print(f"{label:<24}{clips_per_second(source):8,.0f} clips/s")


if __name__ == "__main__":
    main()
