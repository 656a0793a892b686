"""Checks that the metrics of coherence see clips that were broken on purpose, each in one way.

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/coherence_validation.py --videos runs/videos

The command prints a table for each motion of `stunet.data.synthetic.motions`. A table of the least
and the largest mean over all motions at constant speed follows, a second one for all other motions,
and a table for real videos. Windows have 4 frames, as between keyframes. Motions have a period of
about 8 frames, so that such keyframes do not tell which way an object goes.

    python benchmarks/coherence_validation.py --pass-rate 3000

This tells how many of so many real clips count as coherent, how many do if positions are a little
off, and how many of those whose second window comes from another clip that agrees at the keyframes.

    python benchmarks/coherence_validation.py --sheet motions.png

This draws a clip of each motion.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from stunet.data.synthetic.drawing import SHAPES, render
from stunet.data.synthetic.motions import MOTIONS, Motions
from stunet.data.synthetic.stage import Stage
from stunet.evaluate import coherence, free_paths, metrics, tracking
from stunet.prepare.decode import decode_clips

FRAMES, WINDOW = 16, 4
BORDERS = tuple(range(WINDOW, FRAMES, WINDOW))
# Frames between the keyframes at which a window agrees with another clip. A window has both its
# keyframes, so it has 6 frames.
STRIDE = 5
JOINED = "windows: another clip"
# Clips of each motion that `--pass-rate` joins wrongly.
JOINED_CLIPS = 300
# Pixels by which positions are off in clips that a network might make.
JITTER = 0.2
_CANVASES = {"rotate": (16,)}
KINDS = {
    "motions at constant speed": tuple(m for m in MOTIONS if m not in free_paths.MOTIONS),
    "motions whose speed or direction changes": free_paths.MOTIONS,
}
STAGES = {
    f"{motion}, {height}x16": Stage(motion, height, 16, period=8.0, spread=0.2)
    for motion in MOTIONS
    for height in _CANVASES.get(motion, (16, 1))
}


def broken_motion(stage: Stage, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns clips by what was done to them.

    Beside what `_broken` does, the windows of a clip get different velocities, phases or objects.
    One window comes from another clip (`joined_wrongly`).

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
        JOINED: joined_wrongly(stage, num)[0],
    }


def joined_wrongly(stage: Stage, num: int, pool: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Returns clips whose second window comes from another clip that agrees at the keyframes.

    Keyframes lie `STRIDE` frames apart. Among the windows of `pool` other clips whose ends lie
    within 0.75 px of both keyframes, the one is taken that is farthest from the true window. It is
    then moved by what its ends are off, so that the keyframes are exactly the true ones.

    Returns:
        The clips, and for each clip the mean distance in pixels of the window from the true one.
        The distance is 0 if no other clip agrees.
    """
    source, others = Motions("val", stage, FRAMES), Motions("train", stage, FRAMES)
    paths = np.concatenate([others.truth(i).positions for i in range(pool)])
    windows = np.lib.stride_tricks.sliding_window_view(paths, STRIDE + 1, axis=1)
    windows = windows.swapaxes(-1, -2).reshape(-1, STRIDE + 1, 2)
    clips, distances = [], np.full(num, np.inf)
    for i in range(num):
        truth = source.truth(i)
        positions = truth.positions.copy()
        for window in positions[:, STRIDE : 2 * STRIDE + 1]:
            window[:], distance = _farthest(stage, window, windows)
            distances[i] = min(distances[i], distance)
        clips.append(render(stage, [m.shape for m in truth.movers], positions)[..., None])
    return _scaled(clips), distances


def _farthest(stage: Stage, true: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the window that agrees with the true one at its ends, and is farthest in between."""
    extents = np.array([stage.height, stage.width])

    def offset(a, b):
        return a - b - stage.wraps * extents * np.round((a - b) / extents)

    share = np.arange(STRIDE + 1)[:, None] / STRIDE
    first, last = (offset(true[k], windows[:, k]) for k in (0, -1))
    agrees = np.maximum(*(np.linalg.norm(end, axis=-1) for end in (first, last))) < 0.75
    moved = (1 - share) * first[agrees, None] + share * last[agrees, None]
    found = np.concatenate([true[None], windows[agrees] + moved])
    apart = np.linalg.norm(offset(found, true), axis=-1).mean(-1)
    return found[apart.argmax()], float(apart.max())


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


def pass_rates(num: int) -> None:
    """Prints which share of `num` clips of each motion counts as coherent.

    The clips are real ones, real ones whose positions are off by `JITTER` pixels at random, and
    wrongly joined ones.
    """
    columns = ("real clips", "largest deviation", f"off by {JITTER} px", "joined wrongly")
    print(f"| motion | {' | '.join(columns)} | of so many |\n| --- |{' ---: |' * 5}")
    for name, stage in STAGES.items():
        source = Motions("val", stage, FRAMES, length=num)
        shapes = np.array([[mover.shape for mover in source.movers(i)] for i in range(num)])
        clips = _scaled([source[i]["video"] for i in range(num)])
        found = tracking.track(clips, stage, shapes)
        moves = np.isin((0, 1), stage.axes)
        noise = JITTER * moves * np.random.default_rng(0).standard_normal(found.shape)
        joined, distances = joined_wrongly(stage, min(num, JOINED_CLIPS))
        # Windows that differ by less than two pixels on average are no mistake to be found.
        far = distances >= 2
        wrong = tracking.track(joined[far], stage, shapes[: len(far)][far])
        real, off, wrong = (
            coherence.deviation(coherence.unroll(positions, stage))
            for positions in (found, found + noise, wrong)
        )
        rates = [np.mean(values <= coherence.tolerance(stage)) for values in (real, off, wrong)]
        cells = [f"{rates[0]:.2%}", f"{real.max():.2f} px", f"{rates[1]:.1%}", f"{rates[2]:.1%}"]
        print(f"| {name} | {' | '.join(cells)} | {far.sum()} |", flush=True)


def draw_sheet(file: Path) -> None:
    """Draws a clip of each motion: every second frame, and the brightest pixels over time.

    Args:
        file: PNG to write.
    """
    side, gap, head = 64, 12, 24
    font = ImageFont.load_default(14)
    slices = gap + 8 * (side + 4) + gap  # Where the pictures over time begin.
    size = (slices + 2 * (2 * side + gap), gap + len(MOTIONS) * (head + 2 * side + 2 * gap))
    sheet = Image.new("L", size, 255)
    pen = ImageDraw.Draw(sheet)

    def paste(pixels: np.ndarray, left: int, top: int, side: int) -> None:
        picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))

    for row, motion in enumerate(MOTIONS):
        example = Motions("val", Stage(motion, 16, 16, period=16.0), 2 * FRAMES)[3 + row]
        clip, top = example["video"][..., 0], gap + row * (head + 2 * side + 2 * gap)
        pen.text((gap, top), f"{motion}: {example['caption']}", fill=0, font=font)
        for k, frame in enumerate(clip[::2]):
            paste(frame, gap + k % 8 * (side + 4), top + head + k // 8 * (side + 4), side)
        over_time = {"x, time down": clip.max(axis=1), "y, time right": clip.max(axis=2).T}
        for column, (title, pixels) in enumerate(over_time.items()):
            left = slices + column * (2 * side + gap)
            pen.text((left, top), title, fill=0, font=font)
            paste(pixels, left, top + head, 2 * side + 4)
    sheet.save(file, optimize=True)


def measured(stage: Stage, num: int, rng: np.random.Generator) -> dict[str, metrics.MetricValues]:
    """Returns every metric of each set of broken clips, by the name of the set."""
    source = Motions("val", stage, FRAMES)
    truths = [source.truth(i) for i in range(num)]
    options = dict(
        shapes=[tuple(mover.shape for mover in truth.movers) for truth in truths],
        truth=np.stack([truth.positions for truth in truths]),
        reference=_scaled([Motions("train", stage, FRAMES)[i]["video"] for i in range(num)]),
    )
    clips = broken_motion(stage, num, rng)
    borders = {JOINED: (STRIDE, 2 * STRIDE)}
    return {
        name: metrics.measure(c, stage, **options, borders=borders.get(name, BORDERS))
        for name, c in clips.items()
    }


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
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="draw a clip of each motion instead"
    )
    parser.add_argument(
        "--pass-rate", type=int, metavar="N", help="judge N real clips of each motion instead"
    )
    arguments = parser.parse_args()
    begun = time.monotonic()
    if arguments.sheet:
        draw_sheet(arguments.sheet)
    elif arguments.pass_rate:
        pass_rates(arguments.pass_rate)
    else:
        print_tables(arguments.num, arguments.videos)
    print(f"\nin {time.monotonic() - begun:.0f} s")


def print_tables(num: int, videos: Path | None) -> None:
    """Prints every metric of real and of broken clips.

    Args:
        num: clips of each motion.
        videos: folder of real videos; None for none.
    """
    rngs = {kind: np.random.default_rng(0) for kind in KINDS}
    for kind, chosen in KINDS.items():
        tables = []
        for name, stage in STAGES.items():
            if stage.motion in chosen:
                tables.append(measured(stage, num, rngs[kind]))
                print(f"\n{name}\n{metrics.table(tables[-1])}", flush=True)
        print(f"\n{kind}\n\n{ranges(tables)}", flush=True)
    if videos:
        # The random order of the frames is as before there were two kinds of motions.
        clips = broken_videos(videos, next(iter(rngs.values())))
        real = clips["real"]
        # Every second clip is compared with the others.
        found = {
            name: metrics.measure(c[::2], borders=BORDERS, reference=real[1::2])
            for name, c in clips.items()
        }
        title = f"real videos, {len(real[::2])} clips of {FRAMES} frames of 64x64"
        print(f"\n{title}\n\n{metrics.table(found, markdown=True)}")


if __name__ == "__main__":
    main()
