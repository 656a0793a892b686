"""Measures how much a super-resolved clip jumps where its segments meet, with and without overlap.

    stunet train --config memorised_digits --workdir runs/ssr --config.upscale.factor=4
    python benchmarks/multidiffusion_borders.py --workdir runs/ssr --frames 64 --clips 16
    python benchmarks/multidiffusion_borders.py --workdir runs/ssr --memory 16 48 160

Figure 14 of Lumiere (arXiv 2401.12945) shows the mean squared difference of adjacent frames. It has
spikes where segments that were sampled one by one meet, and none where MultiDiffusion averages the
frames that segments share.

The second command makes held-out clips small, and enlarges them with each `--overlap` (0 is none)
from the same noise. It prints that difference at the borders and elsewhere, and draws the
difference of all frames in `borders.png`. Sources that draw their clips (moving_digits, motions)
make clips of any length. With other sources, `--video FILE ...` takes the beginning of each video.

The third command measures what enlarging takes. It prints how much this process grows (Linux)
beside the size of the clip itself, and counts the compiled programs, which serve all lengths.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import plot
from train_step import growth

from stunet.commands.setup import set_up_jax
from stunet.data.sources import make_source
from stunet.diffusion.multidiffusion import Segments, cover
from stunet.errors import UserError
from stunet.generate import inputs, upscale
from stunet.report.statistics import t_interval
from stunet.train.objectives.objective import to_float
from stunet.train.parts import Parts

REAL = "real clips"

# By the name of a set of clips: difference of adjacent frames `[n, t - 1]`, and whether there is a
# border between them, `[t - 1]`.
Differences = Mapping[str, tuple[np.ndarray, np.ndarray]]


def adjacent_errors(clips: np.ndarray) -> np.ndarray:
    """Returns the mean squared difference from each frame to the next, `[n, t - 1]`.

    Args:
        clips: clips `[n, t, h, w, c]`.
    """
    return np.square(np.diff(clips, axis=1)).mean((2, 3, 4))


def is_border(segments: Segments) -> np.ndarray:
    """Tells for each step between frames, `[t - 1]`, whether a segment begins or ends there."""
    steps = np.zeros(segments.frames - 1, bool)
    starts = np.asarray(segments.starts)
    steps[starts[1:] - 1] = True
    steps[starts[:-1] + segments.length - 1] = True
    return steps


def compare(arguments: argparse.Namespace) -> None:
    """Enlarges clips with each overlap, prints the differences and draws them."""
    upscaler = upscale.load(arguments.workdir, **_settings(arguments))
    parts = upscaler.parts
    real, captions = long_clips(parts, arguments)
    low = parts.denoiser.conditioning.clean(real)
    apart = cover(arguments.frames, parts.denoiser.clip.frames, 0)
    rows = {REAL: (adjacent_errors(real), is_border(apart))}
    for overlap in arguments.overlap:
        enlarged = [
            upscale.upscale(upscaler, clip, caption, overlap=overlap, number=i)
            for i, (clip, caption) in enumerate(zip(low, captions, strict=True))
        ]
        errors = adjacent_errors(np.stack([one.clip for one in enlarged]))
        rows[f"overlap {overlap}"] = errors, is_border(enlarged[0].segments)
        print(f"overlap {overlap}: {len(enlarged[0].segments.starts)} segments", file=sys.stderr)
    print(f"{'':12}  at borders   elsewhere   ratio   of the real clips there")
    for name, (errors, border) in rows.items():
        at, elsewhere = (errors[:, where].mean() for where in (border, ~border))
        # Borders may fall on a cut, or on fast motion: real clips tell what is usual there.
        there = adjacent_errors(real)[:, border].mean() / adjacent_errors(real)[:, ~border].mean()
        print(f"{name:12}  {at:10.5f}  {elsewhere:10.5f}  {at / elsewhere:6.2f}  {there:24.2f}")
    out = arguments.out or arguments.workdir / "borders.png"
    draw(out, rows, parts.denoiser.clip.frames)
    print(f"figure      {out}")


def long_clips(parts: Parts, arguments: argparse.Namespace) -> tuple[np.ndarray, Sequence[str]]:
    """Returns clips `[n, t, h, w, c]` in -1..1 at the run's size, and their captions."""
    clip = dataclasses.replace(parts.denoiser.clip, frames=arguments.frames)
    if arguments.video:
        clips = [inputs.read_clip(file, clip) for file in arguments.video]
        return np.stack(clips), [""] * len(clips)
    source = make_source(dataclasses.replace(parts.dataset, clip=clip), "val")
    examples = [source[i] for i in range(arguments.clips)]
    video = to_float(np.stack([example["video"] for example in examples]))
    return video, [example["caption"] for example in examples]


def draw(file: pathlib.Path, rows: Differences, length: int) -> None:
    """Draws the mean difference over the frames, with its 95% interval over clips.

    Args:
        file: PNG to write.
        rows: differences of each set of clips, real clips first.
        length: frames in a segment.
    """
    (errors, _), *_ = rows.values()
    count, steps = errors.shape
    colours = {name: plot.COLOURS[i % len(plot.COLOURS)] for i, name in enumerate(rows)}
    # Real clips stand back behind the others.
    colours[REAL] = plot.SOFT
    curves = []
    for name, (values, _) in rows.items():
        found = [t_interval(list(column)) for column in values.T]
        ends = [[i.mean for i in found], [i.low for i in found], [i.high for i in found]]
        curves.append(plot.Curve(colours[name], range(1, steps + 1), *ends, dots=False))
    most = max(max(curve.high) for curve in curves)
    panel = plot.Panel(
        "mean squared difference from the frame before",
        "frame; segments are marked where they meet without overlap",
        {x: str(x) for x in (1, *range(length, steps + 1, length), steps)},
        plot.ticks(most, 0.05 if most > 0.1 else 0.02 if most > 0.04 else 0.005),
        curves,
    )
    sheet = plot.Sheet(900, 460)
    sheet.title(
        "Frames jump where segments meet, unless segments overlap",
        f"{count} super-resolved clips of {steps + 1} frames; bands are 95% intervals over clips",
    )
    words = {"overlap 0": "no overlap"}
    words = {name: words.get(name, name.replace("overlap ", "overlap of ")) for name in rows}
    sheet.panel(70, 120, 800, 270, panel)
    sheet.legend(500, 80, {words[name]: colour for name, colour in colours.items()})
    sheet.save(file)


def measure(arguments: argparse.Namespace) -> None:
    """Prints how much the process grows while it enlarges clips of several lengths."""
    upscaler = upscale.load(arguments.workdir, **(_settings(arguments) | {"steps": 1}))
    denoiser = upscaler.parts.denoiser
    clip, factor = denoiser.clip, denoiser.conditioning.upscale_factor

    def enlarge(frames: int) -> None:
        shape = (frames, clip.height // factor, clip.width // factor, clip.channels)
        upscale.upscale(upscaler, np.zeros(shape, np.float32), overlap=max(arguments.overlap))

    enlarge(min(arguments.memory))  # Compiles.
    size = clip.height * clip.width * clip.channels * 4
    print("frames  the clip's bytes  the process grew by")
    for frames in arguments.memory:
        grown = growth(lambda frames=frames: enlarge(frames))
        print(f"{frames:6d}  {frames * size / 2**20:12.2f} MiB  {grown / 2**20:14.2f} MiB")
    programs = {name: f._cache_size() for name, f in upscaler.functions._asdict().items()}
    print(f"programs compiled, over all lengths: {programs}")


def _settings(arguments: argparse.Namespace) -> dict[str, int]:
    return {"steps": arguments.steps} if arguments.steps else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="super-resolution run (required)"
    )
    parser.add_argument(
        "--frames", type=int, default=64, metavar="N", help="frames in each clip (default 64)"
    )
    parser.add_argument(
        "--clips", type=int, default=16, metavar="N", help="number of held-out clips (default 16)"
    )
    parser.add_argument(
        "--video", type=pathlib.Path, nargs="+", metavar="FILE", help="videos to take clips from"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        nargs="+",
        default=[0, 2],
        metavar="N",
        help="frames that two segments share (default 0 2)",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="sampling steps (default: the run's own)"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="PNG (default WORKDIR/borders.png)"
    )
    parser.add_argument(
        "--memory",
        type=int,
        nargs="+",
        metavar="N",
        help="measure memory for clips of N frames instead",
    )
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments) if arguments.memory else compare(arguments)
    except UserError as error:
        sys.exit(f"multidiffusion_borders.py: {error}")


if __name__ == "__main__":
    main()
