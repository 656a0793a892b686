"""Measures whether sampled clips show what their captions say: which digit, which way, how fast.

    make quickstart
    python benchmarks/caption_following.py --workdir runs/quickstart --out following.png

Prompts are captions of held-out clips that take turns among all combinations of digit, direction
and speed. `stunet.evaluate.digits` reads what a clip shows without its caption. A support vector
machine that has seen the training handwriting alone reads the digit; tracking reads direction and
speed.

The table has the share of clips that agree with their captions at each guidance scale, with
Wilson's 95% intervals over clips. Real clips of the same captions stand beside them, which bound
how well the reading goes, and chance. Scale 0 leaves the caption out; scale 1 is no guidance.

All scales begin with the same noise. The clips of each scale stay in WORKDIR/caption_following/, so
that the same command continues where it stopped. The figure has the shares, and four frames from
left to right of clips of six captions at each scale.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import plot

from stunet.commands.setup import set_up_jax
from stunet.data.sources import make_source
from stunet.data.synthetic.moving_digits import (
    DIRECTIONS,
    SPEEDS,
    MovingDigit,
    MovingDigits,
    caption,
)
from stunet.errors import UserError
from stunet.evaluate import digits
from stunet.files import atomic
from stunet.generate import text
from stunet.progress import sampling_bar
from stunet.report.statistics import share_interval
from stunet.train.parts import read_parts

REAL = "real clips"
# Captions in the figure.
SHOWN = 6

# By what a caption says: whether each clip shows it, `[n]`.
Hits = Mapping[str, np.ndarray]


def sampled(arguments: argparse.Namespace, scale: float, prompts: Sequence[str]) -> np.ndarray:
    """Returns the clips of a guidance scale, in -1..1, sampled now or by an earlier call."""
    given = {"guidance_scale": scale}
    if arguments.steps:
        given["steps"] = arguments.steps
    run = text.load_unconditioned(arguments.workdir, **given)
    name = f"checkpoint{run.checkpoint}_guidance{scale:g}_num{len(prompts)}_seed{arguments.seed}"
    name += f"_{run.parts.sampling.sampler}{run.parts.sampling.steps}.npy"
    file = arguments.workdir / "caption_following" / name
    if file.is_file():
        return np.load(file, allow_pickle=False)
    print(f"guidance {scale:g}", file=sys.stderr)
    clips = text.sample_clips(
        run, prompts, seed=arguments.seed, batch_size=40, on_step=sampling_bar()
    )
    file.parent.mkdir(exist_ok=True)
    with atomic(file) as partial, partial.open("wb") as out:
        np.save(out, clips)
    return clips


def table(rows: Mapping[str, Hits], num: int) -> str:
    """Lays out shares in percent, with the ends of their intervals.

    Args:
        rows: hits of each set of clips, by the name of the set.
        num: clips in each set.
    """
    lines = [f"{'':12}" + "".join(f"{part:>22}" for part in digits.CHANCE)]
    for name, hits in rows.items():
        cells = []
        for part in digits.CHANCE:
            low, high = share_interval(int(hits[part].sum()), num)
            cells.append(f"{hits[part].mean():.1%} ({low:.0%} to {high:.0%})")
        lines.append(f"{name:12}" + "".join(f"{cell:>22}" for cell in cells))
    chance = "".join(f"{chance:>22.1%}" for chance in digits.CHANCE.values())
    return "\n".join([*lines, f"{'chance':12}{chance}"])


def draw(
    file: pathlib.Path,
    scales: Sequence[float],
    rows: Mapping[str, Hits],
    clips: Sequence[np.ndarray],
    prompts: Sequence[str],
    note: str,
) -> None:
    """Draws the shares over the guidance scale, and frames of some clips below.

    Args:
        file: PNG to write.
        scales: guidance scales, ascending.
        rows: hits at each scale and of real clips, as for `table`.
        clips: clips `[n, t, h, w, c]` at each scale, and real clips, which come last.
        prompts: captions of the first `SHOWN` clips.
        note: line below the title.
    """
    side, frames = clips[0].shape[2:4], np.linspace(0, clips[0].shape[1] - 1, 4).round().astype(int)
    times = max(1, round(40 / side[0]))
    cell, strip = (side[1] * times + 2), 4 * (side[1] * times + 2) + 14
    row = side[0] * times + 12
    width = 110 + SHOWN * strip
    sheet = plot.Sheet(width, 400 + (len(clips)) * row + 20)
    sheet.title("With guidance, clips show what their captions say", note)
    colours = {"sampled clips": plot.COLOURS[0], REAL: plot.COLOURS[2], "chance": plot.SOFT}
    sheet.legend(width - 330, 24, colours)
    shown = ("digit", "direction", "speed")
    panel_width = (width - 40) // len(shown) - 60
    for number, name in enumerate(shown):
        hits = [rows[_name(scale)][name] for scale in scales]
        ends = [share_interval(int(h.sum()), len(h)) for h in hits]
        real = rows[REAL][name]
        low, high = share_interval(int(real.sum()), len(real))
        panel = plot.Panel(
            f"{name} as asked",
            "guidance scale",
            dict(enumerate(f"{scale:g}" for scale in scales)),
            {y / 100: f"{y}%" for y in range(0, 101, 25)},
            [
                plot.Curve(
                    colours["sampled clips"],
                    range(len(scales)),
                    [h.mean() for h in hits],
                    *zip(*ends, strict=True),
                )
            ],
            [
                plot.Level(colours[REAL], real.mean(), low, high),
                plot.Level(colours["chance"], digits.CHANCE[name]),
            ],
        )
        sheet.panel(60 + number * (panel_width + 60), 100, panel_width, 190, panel)
    top = 392
    for column, prompt in enumerate(prompts):
        sheet.text(100 + column * strip, top - 10, prompt, 12, plot.INK, "ls")
    names = [*(f"guidance {scale:g}" for scale in scales), REAL]
    for name, some in zip(names, clips, strict=True):
        sheet.text(92, top + row / 2 - 6, name, 12, plot.INK, "rm")
        for column, clip in enumerate(some[: len(prompts)]):
            for place, frame in enumerate(frames):
                x = 100 + column * strip + place * cell
                sheet.picture(x, top, clip[frame], times)
        top += row
    sheet.save(file)


def _name(scale: float) -> str:
    return f"guidance {scale:g}"


def measure(arguments: argparse.Namespace) -> None:
    """Samples clips at each scale, reads them, prints the table and draws the figure."""
    source = make_source(read_parts(arguments.workdir).dataset, "val")
    reader = digits.train_reader(source)
    chosen = digits.balanced(source, arguments.num)
    truths = [source.truth(i)[0] for i in chosen]
    prompts = [caption([truth]) for truth in truths]
    accuracy = _accuracy(reader, source)
    note = f"{arguments.num} clips at each guidance scale; bands are 95% intervals over clips"
    print(
        f"the digit of {accuracy:.1%} of {len(source)} real clips is read right, of handwriting "
        "that the classifier has not seen"
    )
    scales = sorted(set(arguments.guidance))
    clips = [sampled(arguments, scale, prompts) for scale in scales]
    clips.append(_real(source, chosen))
    names = [*map(_name, scales), REAL]
    rows = {n: reader.read(some).agrees(truths) for n, some in zip(names, clips, strict=True)}
    print(table(rows, arguments.num))
    out = arguments.out or arguments.workdir / "caption_following" / "following.png"
    first = _different(truths)
    draw(out, scales, rows, [some[first] for some in clips], [prompts[i] for i in first], note)
    print(f"figure      {out}")


def _different(truths: Sequence[MovingDigit]) -> list[int]:
    """Returns the first clips of different digits, whose directions and speeds take turns."""
    chosen: list[int] = []
    for place in range(SHOWN):
        shown = {truths[i].digit for i in chosen}
        direction = tuple(DIRECTIONS)[place % len(DIRECTIONS)]
        speed = tuple(SPEEDS)[place % len(SPEEDS)]
        fitting = (
            i
            for i, truth in enumerate(truths)
            if (truth.direction, truth.speed) == (direction, speed) and truth.digit not in shown
        )
        chosen += [i for i in [next(fitting, None)] if i is not None]
    return chosen


def _accuracy(reader: digits.Reader, source: MovingDigits) -> float:
    every = range(len(source))
    truths = [source.truth(i)[0] for i in every]
    return reader.read(_real(source, every)).agrees(truths)["digit"].mean()


def _real(source: MovingDigits, indices: Sequence[int]) -> np.ndarray:
    return np.stack([source[i]["video"] for i in indices]).astype(np.float32) / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="training run (required)"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        nargs="+",
        default=[0, 1, 2, 4, 8],
        metavar="SCALE",
        help="guidance scales (default 0 1 2 4 8)",
    )
    parser.add_argument(
        "--num",
        type=int,
        default=120,
        metavar="N",
        help="clips at each scale (default 120, one of each combination)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="sampling steps (default: the run's own)"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="FILE",
        help="PNG (default WORKDIR/caption_following/following.png)",
    )
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments)
    except UserError as error:
        sys.exit(f"caption_following.py: {error}")


if __name__ == "__main__":
    main()
