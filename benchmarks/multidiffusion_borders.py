"""What is seen of the borders between segments of a super-resolved clip, with and without overlap.

    stunet train --config experiments/quickstart.py --workdir runs/ssr --config.upscale.factor=4
    python benchmarks/multidiffusion_borders.py --workdir runs/ssr --frames 64 --clips 16
    python benchmarks/multidiffusion_borders.py --workdir runs/ssr --memory 16 48 160

Lumiere's figure 14 (arXiv 2401.12945): the mean squared difference of adjacent frames spikes where
segments that were sampled one by one meet, and no longer where MultiDiffusion averages what they
share. The second command enlarges held-out clips, made small, at each `--overlap` (0 is without),
from the same noise, and prints that difference at the borders and elsewhere; all of it is drawn in
`borders.html`. Sources that draw their clips (moving_digits, motions) make them of any length; of
others, `--video FILE ...` takes the beginning of each video instead.

The third says what enlarging takes: the compiled program, which is one for all lengths, and what
this process grows by (Linux), beside the clip's own bytes.
"""

import argparse
import dataclasses
import html
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from train_step import growth

from stunet.commands.setup import set_up_jax
from stunet.data.sources import make_source
from stunet.diffusion.multidiffusion import Segments, cover
from stunet.errors import UserError
from stunet.files import atomic
from stunet.generate import inputs, upscale
from stunet.report.drawing import Curve, chart
from stunet.report.page import page, swatch
from stunet.report.statistics import t_interval
from stunet.train.objective import to_float
from stunet.train.parts import Parts


def adjacent_errors(clips: np.ndarray) -> np.ndarray:
    """`[n, t - 1]` of clips `[n, t, h, w, c]`: the mean squared difference into each frame."""
    return np.square(np.diff(clips, axis=1)).mean((2, 3, 4))


def is_border(segments: Segments) -> np.ndarray:
    """Of each step between frames `[t - 1]`: whether a segment begins after it, or ends before."""
    steps = np.zeros(segments.frames - 1, bool)
    starts = np.asarray(segments.starts)
    steps[starts[1:] - 1] = True
    steps[starts[:-1] + segments.length - 1] = True
    return steps


def compare(arguments: argparse.Namespace) -> None:
    upscaler = upscale.load(arguments.workdir, **_settings(arguments))
    parts = upscaler.parts
    real, captions = long_clips(parts, arguments)
    low = parts.denoiser.conditioning.clean(real)
    apart = cover(arguments.frames, parts.denoiser.clip.frames, 0)
    rows = {"real clips": (adjacent_errors(real), is_border(apart))}
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
        # Borders may fall on a cut, or on fast motion.
        there = adjacent_errors(real)[:, border].mean() / adjacent_errors(real)[:, ~border].mean()
        print(f"{name:12}  {at:10.5f}  {elsewhere:10.5f}  {at / elsewhere:6.2f}  {there:24.2f}")
    draw(arguments.out or arguments.workdir / "borders.html", rows, arguments)


def long_clips(parts: Parts, arguments: argparse.Namespace) -> tuple[np.ndarray, Sequence[str]]:
    """`[n, t, h, w, c]` in -1..1 at the run's size, and their captions."""
    clip = dataclasses.replace(parts.denoiser.clip, frames=arguments.frames)
    if arguments.video:
        clips = [inputs.read_clip(file, clip) for file in arguments.video]
        return np.stack(clips), [""] * len(clips)
    source = make_source(dataclasses.replace(parts.dataset, clip=clip), "val")
    examples = [source[i] for i in range(arguments.clips)]
    video = to_float(np.stack([example["video"] for example in examples]))
    return video, [example["caption"] for example in examples]


def draw(file: pathlib.Path, rows: dict, arguments: argparse.Namespace) -> None:
    frames = range(1, arguments.frames)
    curves = [
        Curve(arm, frames, [t_interval(list(column)) for column in errors.T], errors)
        for arm, (errors, _) in enumerate(rows.values())
    ]
    legend = " ".join(swatch(arm, name) for arm, name in enumerate(rows))
    title = "Each frame and the one before, in super-resolved clips"
    (errors, _), *_ = rows.values()
    said = html.escape(f"{len(errors)} clips of {arguments.frames} frames, {arguments.workdir}")
    parts = [
        f"<h1>{title}</h1><p class=note>{said}; the band is the 95% interval over clips</p>",
        f"<p>{legend}</p>",
        f"<figure>{chart(curves, 'frame', 'squared difference')}</figure>",
    ]
    with atomic(file) as partial:
        partial.write_text(page(title, parts))
    print(f"plot        {file}")


def measure(arguments: argparse.Namespace) -> None:
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
    programs = {name: f._cache_size() for name, f in upscaler.parts._asdict().items()}
    print(f"programs compiled, over all lengths: {programs}")


def _settings(arguments: argparse.Namespace) -> dict[str, int]:
    return {"steps": arguments.steps} if arguments.steps else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of super-resolution")
    parser.add_argument("--frames", type=int, default=64, help="of each clip (64)")
    parser.add_argument("--clips", type=int, default=16, help="held-out ones (16)")
    parser.add_argument(
        "--video", type=pathlib.Path, nargs="+", metavar="FILE", help="videos, instead of these"
    )
    parser.add_argument("--overlap", type=int, nargs="+", default=[0, 2], help="frames (0 2)")
    parser.add_argument("--steps", type=int, help="calls of the network (run's own)")
    parser.add_argument("--out", type=pathlib.Path, help="file (WORKDIR/borders.html)")
    parser.add_argument(
        "--memory", type=int, nargs="+", metavar="FRAMES", help="measure it instead"
    )
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments) if arguments.memory else compare(arguments)
    except UserError as error:
        sys.exit(f"multidiffusion_borders.py: {error}")


if __name__ == "__main__":
    main()
