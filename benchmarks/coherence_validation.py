"""Checks that the metrics of coherence see clips that were broken on purpose, each in one way.

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/coherence_validation.py --videos runs/videos

The command prints a table for each motion of `stunet.data.synthetic.motions`, a table of the least
and the largest mean over all motions, and a table for real videos. Windows have 4 frames, as
between keyframes. Motions have a period of about 8 frames, so that such keyframes do not tell which
way an object goes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from stunet.data.synthetic.motions import MOTIONS, SHAPES, Motions, Stage, render
from stunet.evaluate import metrics
from stunet.prepare.decode import decode_clips

FRAMES, WINDOW = 16, 4
BORDERS = tuple(range(WINDOW, FRAMES, WINDOW))
STAGES = {
    f"{motion}, {height}x16": Stage(motion, height, 16, period=8.0, spread=0.2)
    for motion, heights in [
        ("glide", (16, 1)),
        ("cross", (16, 1)),
        ("bounce", (16, 1)),
        ("rotate", (16,)),
    ]
    for height in heights
}


def broken_motion(stage: Stage, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns clips by what was done to them.

    Beside what `_broken` does, the windows of a clip get different velocities, phases or objects.

    Args:
        stage: motion and size of the clips.
        num: number of clips.
        rng: source of the random numbers.
    """
    source = Motions("val", stage, FRAMES)
    window = np.arange(FRAMES) // WINDOW
    # The step into the first frame of a window belongs to the window before.
    backwards = np.where((np.arange(1, FRAMES) - 1) // WINDOW % 2, -1, 1)
    to_and_fro = np.concatenate([[0], backwards.cumsum()])
    real = _scaled([source[i]["video"] for i in range(num)])
    velocity, phase = [], []
    for i in range(num):
        movers = source.movers(i)
        shifts = rng.random(FRAMES // WINDOW)[window]
        velocity.append(_draw(stage, movers, lambda m: m.phase + to_and_fro / m.period))
        phase.append(
            _draw(stage, movers, lambda m: m.phase + np.arange(FRAMES) / m.period + shifts)  # noqa: B023
        )
    return _broken(real, rng) | {
        "windows: velocity": _scaled(velocity),
        "windows: phase": _scaled(phase),
        "windows: object": _scaled([_other_objects(stage, source, i) for i in range(num)]),
    }


def _other_objects(stage: Stage, source: Motions, i: int) -> np.ndarray:
    """Returns clip i with other shapes in every second window; two objects swap their shapes."""
    truth = source.truth(i)
    others = dict(zip(SHAPES, [*list(SHAPES)[1:], next(iter(SHAPES))], strict=True)) | {
        "arm": "disc"
    }
    shapes = [mover.shape for mover in truth.movers]
    other = shapes[::-1] if len(shapes) == 2 else [others[shape] for shape in shapes]
    clips = np.stack([render(stage, names, truth.positions) for names in (shapes, other)])
    frames = np.arange(FRAMES)
    return clips[frames // WINDOW % 2, frames][..., None]


def broken_videos(directory: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns clips of real videos by what was done to them.

    Beside what `_broken` does, windows play backwards, or come from later in the video.

    Args:
        directory: folder of the videos.
        rng: source of the random numbers.
    """
    long = [
        clip
        for file in sorted(directory.glob("*.mp*"))
        for clip in decode_clips(file, 2 * FRAMES, 24, 64, 64)
    ]
    every = _scaled(long)
    real = every[:, :FRAMES]
    backwards = real.reshape(len(real), -1, WINDOW, *real.shape[2:]).copy()
    backwards[:, 1::2] = backwards[:, 1::2, ::-1]
    later = every.reshape(len(real), -1, WINDOW, *real.shape[2:])[:, ::2]
    return _broken(real, rng) | {
        "windows: backwards": backwards.reshape(real.shape),
        "windows: later": later.reshape(real.shape),
    }


def _broken(real: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns clips as they are, and broken in ways that suit any clip."""
    shuffled = np.stack([clip[rng.permutation(FRAMES)] for clip in real])
    return {
        "real": real,
        "backwards": real[:, ::-1],
        "shuffled": shuffled,
        "frozen": np.repeat(real[:, :1], FRAMES, axis=1),
        "blurred": ndimage.gaussian_filter(real, (0, 0, 1, 1, 0), mode="nearest"),
    }


def _draw(stage: Stage, movers, phases) -> np.ndarray:
    """Draws a clip whose objects have the phases that `phases` gives for each mover."""
    place = MOTIONS[stage.motion].place
    positions = np.stack([place(stage, mover, phases(mover))[0] for mover in movers])
    return render(stage, [mover.shape for mover in movers], positions)[..., None]


def _scaled(videos) -> np.ndarray:
    """Returns uint8 clips as floats in -1..1."""
    return np.stack(videos).astype(np.float32) / 127.5 - 1


def measured(stage: Stage, num: int, rng: np.random.Generator) -> dict[str, metrics.MetricValues]:
    """Returns every metric of each set of broken clips, by the name of the set."""
    source = Motions("val", stage, FRAMES)
    truths = [source.truth(i) for i in range(num)]
    options = dict(
        shapes=[tuple(mover.shape for mover in truth.movers) for truth in truths],
        truth=np.stack([truth.positions for truth in truths]),
        borders=BORDERS,
        reference=_scaled([Motions("train", stage, FRAMES)[i]["video"] for i in range(num)]),
    )
    clips = broken_motion(stage, num, rng)
    return {name: metrics.measure(c, stage, **options) for name, c in clips.items()}


def ranges(tables: list[dict[str, metrics.MetricValues]]) -> str:
    """Lays out the least and the largest mean of each metric over the tables, in Markdown."""
    columns = list(tables[0])
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, metric in metrics.METRICS.items():
        cells = []
        for column in columns:
            means = [metrics.mean(t[column][name]) for t in tables if name in t[column]]
            means = [m + 0.0 for m in means if not np.isnan(m)]
            ends = sorted({metric.show(m): m for m in means}.items(), key=lambda end: end[1])
            ends = [text for text, _ in ends]
            cells.append("-" if not ends else " to ".join(dict.fromkeys((ends[0], ends[-1]))))
        if set(cells) != {"-"}:
            lines.append(f"| {metric.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--num", type=int, default=64, metavar="N", help="clips of each motion (default 64)"
    )
    parser.add_argument(
        "--videos", type=Path, metavar="DIR", help="folder that fetch_real_clips.py made"
    )
    arguments = parser.parse_args()
    begun, rng, tables = time.monotonic(), np.random.default_rng(0), []
    for name, stage in STAGES.items():
        tables.append(measured(stage, arguments.num, rng))
        print(f"\n{name}\n{metrics.table(tables[-1])}", flush=True)
    print(f"\nall motions\n\n{ranges(tables)}")
    if arguments.videos:
        clips = broken_videos(arguments.videos, rng)
        real = clips["real"]
        # Every second clip is compared with the others.
        found = {
            name: metrics.measure(c[::2], borders=BORDERS, reference=real[1::2])
            for name, c in clips.items()
        }
        title = f"real videos, {len(real[::2])} clips of {FRAMES} frames of 64x64"
        print(f"\n{title}\n\n{metrics.table(found, markdown=True)}")
    print(f"\nin {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
