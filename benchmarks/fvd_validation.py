"""Compares I3D with published numbers, and measures what a Fréchet distance of its logits sees.

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/fvd_validation.py --videos runs/videos --out runs/fvd_validation

The command prints I3D's logits of a black and of a white clip beside those of the network on
TF-Hub. Then it prints distances of one half of the real clips from the other half, by I3D's logits
and by histograms of optical flow. The first half is as it is, or its frames are shuffled,
backwards, frozen, blurred or replaced by noise. There are far too few clips for an FVD.

Alternate stretches of each video make the two halves, so that no frame is in both. Within a stretch
a clip begins every 2 frames. `--out` keeps the measurements of each batch.
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
# Frames of a stretch, which belongs to one half of the clips. Short stretches make the halves show
# the same things.
STRETCH = 20
# Numbers of deepmind/i3d-kinetics-400/1 on TF-Hub: the first logits of a black clip of 15 frames,
# and the squared distance of all its logits from those of a white clip.
PUBLISHED = (0.7422104, 2.8297274, 0.39993903)
PUBLISHED_DISTANCE = 133.91


def parity() -> str:
    """Says how I3D's logits of a black and of a white clip compare with the published ones."""
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
    """Returns clips of the even and of the odd stretches of all videos, in -1..1.

    Args:
        directory: folder of the videos.
        fps: frames per second of the clips.
    """
    found = ([], [])
    for file in sorted(f for f in directory.iterdir() if f.suffix in (".mp4", ".mpg")):
        for i, stretch in enumerate(decode_clips(file, STRETCH, fps, SIZE, SIZE)):
            for start in range(0, STRETCH - FRAMES + 1, STRIDE):
                found[i % 2].append(stretch[start : start + FRAMES])
    count = min(map(len, found))
    return tuple(np.stack(clips[:count]).astype(np.float32) / 127.5 - 1 for clips in found)


def changed(real: np.ndarray) -> dict[str, np.ndarray]:
    """Returns clips by what was done to them."""
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
    """Returns by the name of a group of metrics what `stunet evaluate` measures of these clips.

    Args:
        clips: clips in -1..1.
        cache: keeps the measurements of each batch.
        batch: clips in a batch.
    """
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
    parser.add_argument(
        "--videos", type=Path, required=True, help="folder that fetch_real_clips.py made (required)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the cache (required)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second (default 25)")
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="clips in a batch (default 8)"
    )
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
