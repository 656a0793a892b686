"""Measures what filters of shots measure: motion that is known, and hashes of copies.

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/shot_filters.py runs/videos

Motion: a window moves over one picture of each real video at a known speed, in eight directions.
Copies: each shot of the videos is changed as people change videos, and encoded with H.264. Printed
is the share of bits in which its perceptual hash differs from the original's, and from that of the
nearest other shot.
"""

import argparse
import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stunet.data.shots.codecs import Codec
from stunet.prepare import geometry
from stunet.prepare.copies import earlier
from stunet.prepare.cuts import Cut, with_cuts
from stunet.prepare.decode import resampled
from stunet.prepare.looks import HASH_BITS, measure, seen

FPS, SIDE = 24, 256
SPEEDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # shorter sides of the picture per second

Shot = np.ndarray
Change = Callable[[Shot], Shot]


def shots_of(path: Path) -> list[Shot]:
    """Returns the shots of a video, uint8 [t, h, w, 3]."""
    entries = seen(resampled(path, FPS, 3, functools.partial(geometry.at_most, SIDE)))
    shots: list[list[np.ndarray]] = [[]]
    for entry in with_cuts(entries, 6.0):
        if isinstance(entry, Cut):
            shots.append([])
        else:
            shots[-1] += [entry.picture] * entry.times
    return [np.stack(shot) for shot in shots if len(shot) >= FPS]


def measured(pictures: Shot):
    return measure([(entry.look, True) for entry in seen((p, 1) for p in pictures)], FPS)


def panned(picture: np.ndarray, speed: float, angle: float) -> Shot:
    """Returns a window of half the picture's size that moves over it."""
    height, width = (side // 4 * 2 for side in picture.shape[:2])
    # As many frames as stay within the picture, and at least two.
    step = speed * min(height, width) / FPS
    count = int(min(24, max(2, min(height, width) / step)))
    frames = []
    for i in range(count):
        far = step * (i - (count - 1) / 2)
        box = width / 2 + far * math.cos(angle), height / 2 + far * math.sin(angle)
        box = (*box, box[0] + width, box[1] + height)
        image = Image.fromarray(picture)
        frames.append(image.resize((width, height), Image.Resampling.BICUBIC, box))
    return np.stack([np.asarray(frame) for frame in frames])


def print_motion(videos: dict[str, list[Shot]]) -> None:
    print(f"| true motion | {' | '.join(f'{speed:g}' for speed in SPEEDS)} |")
    print(f"|---|{'---:|' * len(SPEEDS)}")
    for name, shots in videos.items():
        cells = []
        for speed in SPEEDS:
            angles = [k * math.pi / 4 for k in range(8)]
            found = [measured(panned(shots[0][0], speed, angle)).motion for angle in angles]
            cells.append(f"{min(found):.2f} to {max(found):.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def encoded(pictures: Shot, quality: int) -> Shot:
    codec, (height, width) = Codec("h264", quality, 48), pictures.shape[1:3]
    packets = list(codec.encode(pictures))
    frames = codec.decode(packets, range(len(packets)), height, width)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def resized(pictures: Shot, share: float, aspect: float = 1.0) -> Shot:
    height, width = (2 * round(side * share / 2) for side in pictures.shape[1:3])
    size = 2 * round(width * aspect / 2), height
    return np.stack(
        [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX)) for p in pictures]
    )


def cropped(pictures: Shot, share: float) -> Shot:
    top, left = (2 * round(side * share / 2) for side in pictures.shape[1:3])
    return pictures[:, top : pictures.shape[1] - top, left : pictures.shape[2] - left]


def brighter(pictures: Shot) -> Shot:
    return np.clip(pictures * 1.1 + 10, 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "encoded at 23": lambda p: encoded(p, 23),
    "encoded at 35": lambda p: encoded(p, 35),
    "half the size, at 28": lambda p: encoded(resized(p, 0.5), 28),
    "a quarter of the size, at 28": lambda p: encoded(resized(p, 0.25), 28),
    "another shape (4:3 as 16:9)": lambda p: encoded(resized(p, 1, 0.75), 23),
    "every second frame": lambda p: encoded(p[::2], 23),
    "brighter, more contrast": lambda p: encoded(brighter(p), 23),
    "begins 0.25 s later": lambda p: encoded(p[FPS // 4 :], 23),
    "2% cut off at each side": lambda p: encoded(cropped(p, 0.02), 23),
    "5% cut off at each side": lambda p: encoded(cropped(p, 0.05), 23),
    "mirrored": lambda p: encoded(np.ascontiguousarray(p[:, :, ::-1]), 23),
}


def hashed(shots: list[Shot]) -> np.ndarray:
    return np.stack([np.frombuffer(bytes.fromhex(measured(s).hash), np.uint8) for s in shots])


def print_copies(videos: dict[str, list[Shot]]) -> None:
    shots = list(itertools.chain(*videos.values()))
    originals = hashed(shots)
    numbers = np.arange(len(shots))
    print("\n| change | differs from the original | from the nearest other | found at 0.1 |")
    print("|---|---:|---:|---:|")
    for name, change in CHANGES.items():
        copies = hashed([change(shot) for shot in shots])
        far = np.bitwise_count(copies[:, None] ^ originals[None]).sum(-1) / HASH_BITS
        own = far[numbers, numbers]
        far[numbers, numbers] = 1
        everything = np.concatenate([originals, copies])
        bits = math.ceil(0.1 * HASH_BITS)
        found = earlier(everything, np.arange(len(everything)), bits)[len(shots) :]
        print(
            f"| {name} | {own.mean():.3f}, at most {own.max():.3f} | {far.min():.3f} | "
            f"{(found == numbers).sum()} of {len(shots)} |",
            flush=True,
        )


def print_scale(count: int) -> None:
    """Looks for copies, of which 3% of the bits differ, among random hashes of `count` shots."""
    rng = np.random.default_rng(0)
    # Bits of real shots are not all set equally often.
    shares = rng.uniform(0.1, 0.9, 256)
    hashes = np.concatenate(
        [np.packbits(rng.random((1000, 256)) < shares, axis=1) for _ in range(count // 1000)]
    )
    half, copies = len(hashes) // 2, len(hashes) // 20
    originals = rng.integers(0, half, copies)
    places = half + rng.permutation(len(hashes) - half)[:copies]
    for original, place in zip(originals, places, strict=True):
        hashes[place] = hashes[original] ^ np.packbits(rng.random(256) < 0.03)
    began = time.process_time()
    found = earlier(hashes, np.arange(len(hashes)), math.ceil(0.1 * HASH_BITS)) >= 0
    seconds = time.process_time() - began
    print(
        f"\n{len(hashes):,} shots: {found[places].sum():,} of {copies:,} copies found, and "
        f"{found.sum() - found[places].sum():,} others, in {seconds:.1f} s of processor time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--scale", type=int, default=0, help="also look among so many shots")
    parsed = parser.parse_args()
    if parsed.scale:
        print_scale(parsed.scale)
    folder = parsed.videos
    videos = {path.name: shots_of(path) for path in sorted(folder.glob("*.m*"))}
    print_motion(videos)
    print_copies(videos)


if __name__ == "__main__":
    main()
