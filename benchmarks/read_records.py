"""Measures how fast clips are read from records, and what parsing the records costs.

    python benchmarks/read_records.py

The program writes 1,000 synthetic 16x64x64x3 clips (about 225 MB, removed afterwards). It then
reads all of them in random order from a warm file cache on one thread, and prints clips per second.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from stunet.data.clips import ClipRecords
from stunet.prepare.writing import ClipWriter

SHAPE = (16, 64, 64, 3)
TEXT_SHAPE = (16, 384)


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
