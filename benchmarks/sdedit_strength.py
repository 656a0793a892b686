"""Measures how much of a video is left at each strength of `stunet sample video` (SDEdit).

    python benchmarks/sdedit_strength.py --workdir runs/quickstart --out strength.png

Each held-out clip is edited towards the caption of the next clip. For each strength the command
prints two root mean square differences of values in -1..1, with 95% intervals over clips:

    from the input        the difference from the clip that was given, which is 0 at strength 0
    from the text task's  the difference from the clip that the text task makes of the same caption
                          and noise, which is 0 at strength 1, where nothing of the input is left

The command also says whether the difference from the input grows with every step of strength. The
figure has both curves, and slices through time of three clips at each strength: one row of pixels
with time running down, or one column with time running right if the clip moves up and down.
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

# Clips in the figure.
SHOWN = 3
INPUT, TEXT = "from the input", "from the text task's"
COLOURS = {INPUT: plot.COLOURS[0], TEXT: plot.COLOURS[1]}

# By strength and by what a clip is compared with: the distance of each clip, `[n]`.
Distances = Mapping[float, Mapping[str, np.ndarray]]


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the root mean square difference of each clip, `[n]`."""
    return np.sqrt(np.square(a - b).mean((1, 2, 3, 4)))


def edited(
    run: text.Run, clips: np.ndarray, prompts: Sequence[str], strengths: Sequence[float], seed: int
) -> dict[float, np.ndarray]:
    """Returns the clips, edited towards the prompts, by strength."""
    made = {}
    for strength in strengths:
        print(f"strength {strength:g}", file=sys.stderr)
        options = dict(seed=seed, batch_size=16, on_step=sampling_bar())
        made[strength] = video.edit(run, prompts, clips, strength, **options)
    return made


def table(distances: Distances) -> str:
    """Lays out the mean distance at each strength, with half of its 95% interval."""
    lines = [f"{'strength':>10}" + "".join(f"{name:>24}" for name in COLOURS)]
    for strength, found in distances.items():
        cells = []
        for name in COLOURS:
            interval = t_interval(found[name].tolist())
            cells.append(f"{interval.mean:.3f} ± {interval.half or 0:.3f}")
        lines.append(f"{strength:10g}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def draw(
    file: pathlib.Path, distances: Distances, edits: Mapping[float, np.ndarray], note: str
) -> None:
    """Draws both distances over strength, and slices of some clips below.

    Args:
        file: PNG to write.
        distances: distances at each strength, ascending.
        edits: edited clips `[n, t, h, w, c]` at each strength; at strength 0 the input.
        note: line below the title.
    """
    strengths = list(distances)
    slices = [[_slice(edits[s][i], edits[0][i]) for s in strengths] for i in range(SHOWN)]
    size = max(max(pixels.shape[:2]) for row in slices for pixels in row)
    times = max(1, round(64 / size))
    cell, rows = size * times + 6, [row[0].shape[0] * times + 8 for row in slices]
    width, top = 110 + len(strengths) * cell, 430
    sheet = plot.Sheet(width, top + sum(rows) + 16)
    sheet.title("An edited video keeps less of its input with more strength", note)
    curves = []
    for name, colour in COLOURS.items():
        found = [t_interval(distances[s][name].tolist()) for s in strengths]
        ends = [[i.mean for i in found], [i.low for i in found], [i.high for i in found]]
        curves.append(plot.Curve(colour, strengths, *ends))
    most = max(max(curve.high) for curve in curves)
    panel = plot.Panel(
        "root mean square difference",
        "strength",
        {s: f"{s:g}" for s in strengths},
        plot.ticks(most, 0.2 if most > 0.5 else 0.1),
        curves,
    )
    sheet.panel(100, 112, len(strengths) * cell - 6, 230, panel)
    names = {INPUT: "from the input", TEXT: "from what the text task makes"}
    sheet.legend(width - 410, 92, {names[name]: colour for name, colour in COLOURS.items()})
    sheet.text(100, 398, "slices through time, at each strength from left to right", anchor="ls")
    for row, height in zip(slices, rows, strict=True):
        for place, pixels in enumerate(row):
            sheet.picture(100 + place * cell, top, pixels, times)
        top += height
    sheet.save(file)


def _slice(clip: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Returns the slice of a clip through the row or the column in which `given` moves most."""
    if media.moves_vertically(given):
        return media.yt_slice(clip, media.most_variable_column(given))
    return media.xt_slice(clip, media.most_variable_row(given))


def measure(arguments: argparse.Namespace) -> None:
    """Edits clips at each strength, prints the distances and draws them."""
    given = {"steps": arguments.steps} if arguments.steps else {}
    run = text.load_unconditioned(arguments.workdir, **given)
    source = make_source(run.parts.dataset, "val")
    examples = [source[i] for i in range(min(arguments.num, len(source)))]
    clips = np.stack([e["video"] for e in examples]).astype(np.float32) / 127.5 - 1
    captions = [e["caption"] for e in examples]
    prompts = captions[1:] + captions[:1]
    strengths = sorted({0.0, *arguments.strength, 1.0})
    edits = edited(run, clips, prompts, strengths, arguments.seed)
    print("text", file=sys.stderr)
    of_text = text.sample_clips(
        run, prompts, seed=arguments.seed, batch_size=16, on_step=sampling_bar()
    )
    distances = {
        strength: {INPUT: distance(new, clips), TEXT: distance(new, of_text)}
        for strength, new in edits.items()
    }
    print(table(distances))
    means = [found[INPUT].mean() for found in distances.values()]
    for what, holds in {
        "strength 0 returns the input, bit for bit": np.array_equal(edits[0], clips),
        "strength 1 returns what the text task makes, bit for bit": np.array_equal(
            edits[1], of_text
        ),
        "the mean difference from the input grows with every step": bool(
            np.all(np.diff(means) > 0)
        ),
    }.items():
        print(f"{what}: {'yes' if holds else 'no'}")
    out = arguments.out or arguments.workdir / "sdedit_strength.png"
    note = (
        f"{len(clips)} held-out clips edited towards other captions; bands are 95% intervals over"
    )
    draw(out, distances, edits, f"{note} clips")
    print(f"figure  {out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="training run (required)"
    )
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[k / 10 for k in range(11)],
        metavar="S",
        help="strengths, 0 to 1, beside both ends (default 0 0.1 ... 1)",
    )
    parser.add_argument(
        "--num", type=int, default=32, metavar="N", help="number of held-out clips (default 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="sampling steps (default: the run's own)"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="PNG (default WORKDIR/sdedit_strength.png)"
    )
    arguments = parser.parse_args()
    set_up_jax()
    try:
        measure(arguments)
    except UserError as error:
        sys.exit(f"sdedit_strength.py: {error}")


if __name__ == "__main__":
    main()
