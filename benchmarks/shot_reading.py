"""Measures how many clips a second one processor reads from shots, as training reads them.

    python experiments/fetch_real_clips.py runs/videos
    stunet prepare runs/videos runs/uncut --cut-threshold 0 --val-fraction 0
    python benchmarks/shot_reading.py runs/uncut --config lumiere_base

Clips have the frames, size and rate of the config. They are read in the order of a run, at random
places, into batches, with text states of the config's width (of 25 tokens, and stored for this
measurement). Everything runs on one thread, and times are those of the processor, so that other
programs hardly change them. For `lumiere_base`, the hosts of Google Cloud's TPUs are compared with
what they need, by the step times in docs/how-to/plan.md. The processors of a host are as its
machine type has them: ct5p-hightpu-4t, ct6e-standard-4t and ct5lp-hightpu-4t, by
cloud.google.com/tpu/docs/v5p, /v6e and /v5e.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stunet import configs
from stunet.data.pipeline import Feed, Stream, TrainBatches
from stunet.data.shots.layout import read_index
from stunet.data.shots.source import ShotClips
from stunet.data.spec import TextSpec
from stunet.prepare.texts import write_states
from stunet.train.parts import make_parts

BASE, TOKENS = "lumiere_base", 25
# Clips in a batch, and batches that are read for each measurement.
BATCH, BATCHES, REPEATS = 4, 10, 3


class Host(NamedTuple):
    """Describes the hosts of a slice that trains `lumiere_base`.

    Attributes:
        topology: name of the slice.
        processors: virtual CPUs of each host.
        clips: clips that each host reads for a step.
        step: seconds of a step, as planned.
    """

    topology: str
    processors: int
    clips: int
    step: float


# A host has 4 chips. On v6e and v5e, four chips share a clip.
HOSTS = (
    Host("v5p:4x4x4", 208, 4, 1.074),
    Host("v6e:16x16", 180, 1, 0.296),
    Host("v5e:16x16", 112, 1, 0.746),
)


class States:
    """A stand-in for a text encoder, whose states are random."""

    fingerprint = "random"

    def __init__(self, max_length: int, dim: int):
        self.max_length, self.dim = max_length, dim

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        shape = len(captions), self.max_length, self.dim
        states = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return states, np.broadcast_to(np.arange(self.max_length) < TOKENS, shape[:2])

    def is_cut(self, caption: str) -> bool:
        return False


def seconds_for_each(source: ShotClips) -> float:
    """Returns the processor time of each clip, the least of a few measurements."""
    batches = TrainBatches([Feed([Stream(source, 0)], BATCH)], num_threads=0)
    next(batches)
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(BATCHES):
            next(batches)
        times.append((time.process_time() - began) / (BATCH * BATCHES))
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shots", type=Path, help="directory of a set of shots")
    parser.add_argument("--config", default=BASE, help="config of the clips")
    arguments = parser.parse_args()
    data = make_parts(configs.load(arguments.config)).dataset
    text = TextSpec("t5:none", data.text.max_length, data.text.dim, States.fingerprint)
    parts = len(read_index(arguments.shots).records)
    write_states(arguments.shots, parts, text.encoder, States(text.max_length, text.dim))
    source = ShotClips(arguments.shots, "train", data.clip, text)
    each = seconds_for_each(source)
    shape = "x".join(map(str, data.clip.shape))
    print(f"clips of {shape} at {data.clip.fps:g} frames per second: {1 / each:.1f} clips/s")
    if arguments.config != BASE:
        return
    print("| hosts of | clips/s that a host needs | processors for it | of |\n|---|---:|---:|---:|")
    for host in HOSTS:
        needed = host.clips / host.step
        print(f"| {host.topology} | {needed:.1f} | {needed * each:.2f} | {host.processors} |")


if __name__ == "__main__":
    main()
