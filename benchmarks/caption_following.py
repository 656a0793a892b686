"""Do sampled clips show what their captions say? Which digit, which way, how fast.

    stunet train --config experiments/text_digits.py --workdir runs/text_digits
    python benchmarks/caption_following.py --workdir runs/text_digits --out following.png

Prompts are captions of held-out clips, one of each combination of digit, direction and speed after
the other. What a clip shows is read off it without its caption (`stunet.evaluate.following`): the
digit by a support vector machine that has seen the training handwriting alone, direction and speed
by tracking. The table has the share of clips that agree with their captions, with 95% intervals
(Wilson's, over clips), at each guidance scale, beside the real clips of the same captions, which is
as well as the reading goes, and beside chance. Scale 0 leaves the caption out; 1 is no guidance.

All scales begin with the same noise. The clips of each are kept in WORKDIR/caption_following/, so
that the same command goes on where it was stopped. The figure has the table, and clips of six
captions at each scale, read from left to right.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence

import digit_reader
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
from stunet.files import atomic
from stunet.generate import text
from stunet.progress import sampling_bar
from stunet.report.statistics import share_interval
from stunet.train.parts import read_parts

REAL = "real clips"
SHOWN = 6  # captions in the figure

Hits = Mapping[str, np.ndarray]


def sampled(arguments: argparse.Namespace, scale: float, prompts: Sequence[str]) -> np.ndarray:
    """The clips of a scale, -1..1: made, or found where an earlier call has left them."""
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
    """Shares in percent, with the ends of their intervals."""
    lines = [f"{'':12}" + "".join(f"{said:>22}" for said in digit_reader.CHANCE)]
    for name, hits in rows.items():
        cells = []
        for said in digit_reader.CHANCE:
            low, high = share_interval(int(hits[said].sum()), num)
            cells.append(f"{hits[said].mean():.1%} ({low:.0%} to {high:.0%})")
        lines.append(f"{name:12}" + "".join(f"{cell:>22}" for cell in cells))
    chance = "".join(f"{chance:>22.1%}" for chance in digit_reader.CHANCE.values())
    return "\n".join([*lines, f"{'chance':12}{chance}"])


def draw(
    file: pathlib.Path,
    scales: Sequence[float],
    rows: Mapping[str, Hits],
    clips: Sequence[np.ndarray],
    prompts: Sequence[str],
    said: str,
) -> None:
    """The figure.

    Args:
        file: PNG.
        scales: guidance scales, ascending.
        rows: hits of each, and of real clips, as `table`'s.
        clips: `[n, t, h, w, c]` of each scale, and real ones.
        prompts: of the first `SHOWN` clips.
        said: below the title.
    """
    side, frames = clips[0].shape[2:4], np.linspace(0, clips[0].shape[1] - 1, 4).round().astype(int)
    times = max(1, round(40 / side[0]))
    cell, strip = (side[1] * times + 2), 4 * (side[1] * times + 2) + 14
    row = side[0] * times + 12
    width = 110 + SHOWN * strip
    sheet = plot.Sheet(width, 400 + (len(clips)) * row + 20)
    sheet.text(20, 14, "Clips that show what their caption says", 19)
    sheet.text(20, 40, said, 13, plot.SOFT)
    shown = ("digit", "direction", "speed")
    panel_width = (width - 40) // len(shown) - 60
    for number, name in enumerate(shown):
        hits = [rows[_name(scale)][name] for scale in scales]
        ends = [share_interval(int(h.sum()), len(h)) for h in hits]
        real = rows[REAL][name]
        low, high = share_interval(int(real.sum()), len(real))
        panel = plot.Panel(
            name,
            "guidance scale",
            dict(enumerate(f"{scale:g}" for scale in scales)),
            {y / 100: f"{y}%" for y in range(0, 101, 25)},
            [
                plot.Curve(
                    plot.COLOURS[0],
                    range(len(scales)),
                    [h.mean() for h in hits],
                    *zip(*ends, strict=True),
                )
            ],
            [
                plot.Level(plot.COLOURS[2], real.mean(), REAL, low, high),
                plot.Level(plot.SOFT, digit_reader.CHANCE[name], "chance"),
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
    source = make_source(read_parts(arguments.workdir).dataset, "val")
    reader = digit_reader.train_reader(source)
    chosen = digit_reader.balanced(source, arguments.num)
    truths = [source.truth(i)[0] for i in chosen]
    prompts = [caption([truth]) for truth in truths]
    accuracy = _accuracy(reader, source)
    said = f"{arguments.num} clips at each scale, {arguments.workdir}; bands are 95% intervals"
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
    draw(out, scales, rows, [some[first] for some in clips], [prompts[i] for i in first], said)
    print(f"figure      {out}")


def _different(truths: Sequence[MovingDigit]) -> list[int]:
    """The first clips of other digits, with directions and speeds in turn."""
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


def _accuracy(reader: digit_reader.Reader, source: MovingDigits) -> float:
    every = range(len(source))
    truths = [source.truth(i)[0] for i in every]
    return reader.read(_real(source, every)).agrees(truths)["digit"].mean()


def _real(source: MovingDigits, indices: Sequence[int]) -> np.ndarray:
    return np.stack([source[i]["video"] for i in indices]).astype(np.float32) / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a training run")
    parser.add_argument(
        "--guidance", type=float, nargs="+", default=[0, 1, 2, 4, 8], help="scales (0 1 2 4 8)"
    )
    parser.add_argument("--num", type=int, default=120, help="clips at each (120: one of a kind)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--steps", type=int, help="calls of the network (run's own)")
    parser.add_argument(
        "--out", type=pathlib.Path, help="PNG (WORKDIR/caption_following/following.png)"
    )
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments)
    except UserError as error:
        sys.exit(f"caption_following.py: {error}")


if __name__ == "__main__":
    main()
