"""How much of a video is left at each strength of `stunet sample video` (SDEdit).

    python benchmarks/sdedit_strength.py --workdir runs/text_digits --out strength.png

Held-out clips are made anew after the caption of the next one. For each strength it prints, in
steps of -1..1 and with 95% intervals over clips,

    to the input    the root mean square difference from the clip that was given: 0 at strength 0
    to the text's   that from what the text task makes of the same caption and noise: 0 at strength
                    1, where nothing of the input is left

and whether the distance to the input grows with every step of strength. The figure has both curves,
and X-T slices of three clips over strength: one row of pixels, time running down.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import plot

from stunet.commands.setup import set_up_jax
from stunet.data import media
from stunet.data.sources import make_source
from stunet.errors import UserError
from stunet.generate import text, video
from stunet.progress import sampling_bar
from stunet.report.statistics import t_interval

SHOWN = 3  # clips in the figure
TO = {"to the input": plot.COLOURS[0], "to the text's": plot.COLOURS[1]}

Distances = Mapping[float, Mapping[str, np.ndarray]]


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square difference of each clip, `[n]`."""
    return np.sqrt(np.square(a - b).mean((1, 2, 3, 4)))


def edited(
    run: text.Run, clips: np.ndarray, prompts: Sequence[str], strengths: Sequence[float], seed: int
) -> dict[float, np.ndarray]:
    """The clips made anew after the prompts, by strength."""
    made = {}
    for strength in strengths:
        print(f"strength {strength:g}", file=sys.stderr)
        options = dict(seed=seed, batch_size=16, on_step=sampling_bar())
        made[strength] = video.edit(run, prompts, clips, strength, **options)
    return made


def table(distances: Distances) -> str:
    lines = [f"{'strength':>10}" + "".join(f"{to:>18}" for to in TO)]
    for strength, found in distances.items():
        cells = []
        for to in TO:
            interval = t_interval(found[to].tolist())
            cells.append(f"{interval.mean:.3f} ± {interval.half or 0:.3f}")
        lines.append(f"{strength:10g}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def draw(
    file: pathlib.Path, distances: Distances, made: Mapping[float, np.ndarray], said: str
) -> None:
    strengths = list(distances)
    slices = {
        strength: [media.xt_slice(new, media.most_variable_row(old)) for new, old in pairs]
        for strength, clips in made.items()
        for pairs in [list(zip(clips[:SHOWN], made[strengths[0]], strict=False))]
    }
    height, columns = slices[strengths[0]][0].shape[:2]
    times = max(1, round(64 / columns))
    cell, row = columns * times + 6, height * times + 8
    width = 110 + len(strengths) * cell
    sheet = plot.Sheet(width, 440 + SHOWN * row)
    sheet.text(20, 14, "A video made anew: how much of it is left", 19)
    sheet.text(20, 40, said, 13, plot.SOFT)
    curves = []
    for to, colour in TO.items():
        found = [t_interval(distances[s][to].tolist()) for s in strengths]
        curves.append(
            plot.Curve(
                colour,
                strengths,
                [i.mean for i in found],
                [i.low for i in found],
                [i.high for i in found],
            )
        )
    most = max(max(curve.high) for curve in curves)
    step = 0.2 if most > 0.5 else 0.1
    ticks = {k * step: f"{k * step:g}" for k in range(int(np.ceil(most / step)) + 1)}
    panel = plot.Panel(
        "root mean square difference",
        "strength",
        {s: f"{s:g}" for s in strengths},
        ticks,
        curves,
    )
    sheet.panel(100, 112, len(strengths) * cell - 6, 230, panel)
    sheet.legend(
        width - 390,
        92,
        {"to the input": TO["to the input"], "to what the text task makes": TO["to the text's"]},
    )
    top = 416
    sheet.text(
        100,
        top - 8,
        "X-T slices of the clips, at each strength from left to right",
        13,
        anchor="ls",
    )
    for place, strength in enumerate(strengths):
        for clip, pixels in enumerate(slices[strength]):
            sheet.picture(100 + place * cell, top + clip * row, pixels, times)
    sheet.save(file)


def measure(arguments: argparse.Namespace) -> None:
    given = {"steps": arguments.steps} if arguments.steps else {}
    run = text.load_unconditioned(arguments.workdir, **given)
    source = make_source(run.parts.dataset, "val")
    examples = [source[i] for i in range(min(arguments.num, len(source)))]
    clips = np.stack([e["video"] for e in examples]).astype(np.float32) / 127.5 - 1
    captions = [e["caption"] for e in examples]
    prompts = captions[1:] + captions[:1]
    strengths = sorted({0.0, *arguments.strength, 1.0})
    made = edited(run, clips, prompts, strengths, arguments.seed)
    print("text", file=sys.stderr)
    of_text = text.sample_clips(
        run, prompts, seed=arguments.seed, batch_size=16, on_step=sampling_bar()
    )
    distances = {
        strength: {"to the input": distance(new, clips), "to the text's": distance(new, of_text)}
        for strength, new in made.items()
    }
    print(table(distances))
    means = [found["to the input"].mean() for found in distances.values()]
    for what, holds in {
        "strength 0 returns the input, bit for bit": np.array_equal(made[0], clips),
        "strength 1 returns what the text task makes, bit for bit": np.array_equal(
            made[1], of_text
        ),
        "the mean distance to the input grows with every step": bool(np.all(np.diff(means) > 0)),
    }.items():
        print(f"{what}: {'yes' if holds else 'no'}")
    out = arguments.out or arguments.workdir / "sdedit_strength.png"
    said = f"{len(clips)} held-out clips after other captions, {arguments.workdir}; bands are 95% "
    draw(out, distances, made, said + "intervals over clips")
    print(f"figure  {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a training run")
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[k / 10 for k in range(11)],
        help="0 to 1 (0 0.1 ... 1); both ends are always there",
    )
    parser.add_argument("--num", type=int, default=32, help="held-out clips (32)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--steps", type=int, help="calls of the network (run's own)")
    parser.add_argument("--out", type=pathlib.Path, help="PNG (WORKDIR/sdedit_strength.png)")
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments)
    except UserError as error:
        sys.exit(f"sdedit_strength.py: {error}")


if __name__ == "__main__":
    main()
