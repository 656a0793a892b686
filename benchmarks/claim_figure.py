"""Draws slices through time of each arm of a sweep, side by side, for docs/how-to/cascade.md.

    python benchmarks/claim_figure.py --sweep runs/claim --out experiments/results/claim_xt.png

The figure shows three clips of the first seed of each arm of
`experiments/sweeps/single_pass_vs_cascade.py`, real clips first, with the share of clips whose
velocity stays steady. The slices come from the sheets that `stunet evaluate` wrote.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np
import plot

from stunet.data import media
from stunet.report import pictures, results
from stunet.report.report import choose_colours
from stunet.report.results import Arms, by_seed
from stunet.report.statistics import t_interval

CLIPS, CELL, GAP, TOP, HEAD, LEFT = 3, 160, 14, 76, 58, 104


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sweep", type=pathlib.Path, required=True, help="directory of the sweep (required)"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="PNG to write (required)")
    arguments = parser.parse_args()
    draw(results.read(arguments.sweep).groups(), arguments.out)


def draw(groups: dict[str, Arms], file: pathlib.Path) -> None:
    """Draws a band of slices for each group, and in it a column for each arm.

    Args:
        groups: runs of each arm of each group.
        file: PNG to write.
    """
    colours = choose_colours(groups)
    bands = {group: _columns(arms, colours) for group, arms in groups.items()}
    slices = [pixels for columns in bands.values() for *_, some in columns for pixels in some]
    times = max(1, round(CELL / max(pixels.shape[1] for pixels in slices)))
    height, width = (max(p.shape[axis] for p in slices) * times for axis in (0, 1))
    band = HEAD + CLIPS * (height + GAP) + 12
    columns = max(map(len, bands.values()))
    sheet = plot.Sheet(LEFT + columns * (width + GAP) + 6, TOP + len(bands) * band)
    sheet.title(
        "Steady motion draws a straight line",
        "slices of sampled clips: one row of pixels over time; percentages are clips with steady "
        "velocity, ± half of the 95% interval over seeds",
    )
    for row, (group, found) in enumerate(bands.items()):
        top = TOP + row * band + HEAD
        sheet.text(20, top, group.replace(" ", "\n"), 15)
        for column, (name, share, colour, some) in enumerate(found):
            x = LEFT + column * (width + GAP)
            sheet.legend(x, top - 46, {name: colour})
            sheet.text(x + 15, top - 36, share, plot.TEXT, plot.SOFT)
            for i, pixels in enumerate(some):
                sheet.picture(x, top + i * (height + GAP), pixels, times)
        sheet.axes(LEFT, top, "x", "time")
    sheet.save(file)


def _columns(
    arms: Arms, colours: dict[str, int]
) -> list[tuple[str, str, str, Sequence[np.ndarray]]]:
    """Returns the name, the share of steady clips, the colour and the slices of each column."""
    config = next(r.directory / "config.json" for runs in arms.values() for r in runs if r.settings)
    _, real = pictures.real_clips(config)
    columns = [("real clips", "", plot.INK, _slices(real))]
    shown = results.compared(arms)
    for arm in sorted(shown, key=colours.get):
        mean = t_interval(list(by_seed(shown[arm], "coherent").values()))
        share = f"{mean.mean:.0%}" + (f" ± {mean.half:.0%}" if mean.half else "")
        name, _, given = arm.partition(" on ")
        share = f"{given}: {share}" if given else share
        xt = shown[arm][0].xt.read_bytes()
        columns.append((name, share, plot.COLOURS[colours[arm]], _slices(xt)))
    return columns


def _slices(png: bytes) -> list[np.ndarray]:
    return [pixels for _, pixels in media.read_slices(png)[:CLIPS]]


if __name__ == "__main__":
    main()
