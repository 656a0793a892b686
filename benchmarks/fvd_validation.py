"""Does I3D compute what was published, and what does a Fréchet distance of its logits see?

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/fvd_validation.py --videos runs/videos --out runs/fvd_validation

Prints I3D's logits of a black and of a white clip beside those of TF-Hub's network, and then the
distances of one half of the real clips from the other half: as they are, with their frames
shuffled, backwards, frozen, blurred, and of noise; by I3D's logits and by the histograms of optical
flow. These are far too few clips for an FVD.

Halves are of alternate stretches of each video, so that no frame is in both; within a stretch clips
begin every 2 frames. What was measured of a batch is kept in `--out`.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.evaluator import shuffle_frames
from stunet.evaluate.groups import METRIC_GROUPS, frechet_name
from stunet.evaluate.i3d import Features
from stunet.evaluate.scene import Scene
from stunet.prepare.decode import decode_clips

FRAMES, STRIDE, SIZE = 16, 2, 64
# Frames of a stretch, which belongs to one half of the clips: short, so that halves show the same.
STRETCH = 20
# Of TF-Hub's deepmind/i3d-kinetics-400/1: first logits of a black clip of 15 frames, and the
# squared distance of all logits from a white one's.
PUBLISHED = (0.7422104, 2.8297274, 0.39993903)
PUBLISHED_DISTANCE = 133.91


def parity() -> str:
    clips = np.full((2, 15, 224, 224, 3), -1, np.float32)
    clips[1] = 1
    black, white = Features()(clips).astype(np.float64)
    distance = ((black - white) ** 2).sum()
    ours = ", ".join(f"{x:.7f}" for x in black[:3])
    theirs = ", ".join(f"{x:.7f}" for x in PUBLISHED)
    return (
        f"first logits of a black clip       {ours} (published: {theirs})\n"
        f"squared distance from a white one  {distance:.4f} (published: {PUBLISHED_DISTANCE})"
    )


def halves(directory: Path, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Clips of the odd and of the even stretches of all videos, in -1..1."""
    found = ([], [])
    for file in sorted(f for f in directory.iterdir() if f.suffix in (".mp4", ".mpg")):
        for i, stretch in enumerate(decode_clips(file, STRETCH, fps, SIZE, SIZE)):
            for start in range(0, STRETCH - FRAMES + 1, STRIDE):
                found[i % 2].append(stretch[start : start + FRAMES])
    count = min(map(len, found))
    return tuple(np.stack(clips[:count]).astype(np.float32) / 127.5 - 1 for clips in found)


def changed(real: np.ndarray) -> dict[str, np.ndarray]:
    """Clips by what was done to them."""
    rng = np.random.default_rng(0)
    return {
        "real": real,
        "shuffled": np.stack([shuffle_frames(clip, i) for i, clip in enumerate(real)]),
        "backwards": real[:, ::-1],
        "frozen": np.repeat(real[:, :1], FRAMES, axis=1),
        "blurred": ndimage.gaussian_filter(real, (0, 0, 1, 1, 0), mode="nearest"),
        "noise": rng.uniform(-1, 1, real.shape).astype(np.float32),
    }


def measured(
    clips: np.ndarray, cache: MeasurementCache, batch: int
) -> dict[str, dict[str, np.ndarray]]:
    """By metric, what `stunet evaluate` measures of these clips."""
    found = {}
    for name in ("flow", "fvd"):
        parts = []
        for first in range(0, len(clips), batch):
            part = clips[first : first + batch]
            arrays = cache.read(name, part)
            if arrays is None:
                arrays = METRIC_GROUPS[name].measure(part, Scene(), ())
                cache.write(arrays, name, part)
            parts.append(arrays)
        found[name] = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True, help="folder of fetch_real_clips.py")
    parser.add_argument("--out", type=Path, required=True, help="where logits are kept")
    parser.add_argument("--fps", type=float, default=25.0, help="of the clips")
    parser.add_argument("--batch-size", type=int, default=8, help="clips at once")
    arguments = parser.parse_args()
    begun, cache = time.monotonic(), MeasurementCache(arguments.out)
    print(f"{parity()}\n", flush=True)
    real, reference = halves(arguments.videos, arguments.fps)
    shape = (FRAMES, SIZE, SIZE)
    against = measured(reference, cache, arguments.batch_size)
    _, words = frechet_name(len(real), len(reference), shape)
    print(f"{words}, against {len(reference)} others:\n")
    print(f"| | {words.split(',')[0]} | flow histograms, px | flow-change histograms, px |")
    print("| --- | ---: | ---: | ---: |", flush=True)
    for name, clips in changed(real).items():
        found = measured(clips, cache, arguments.batch_size)
        values = list(
            itertools.chain.from_iterable(
                METRIC_GROUPS[metric].compare(found[metric], against[metric], shape).values()
                for metric in ("fvd", "flow")
            )
        )
        print(f"| {name} | {values[0]:.1f} | {values[1]:.3f} | {values[2]:.3f} |", flush=True)
    print(f"\nin {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
