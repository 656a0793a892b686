"""The figure of docs/how-to/cascade.md: X-T slices of a sweep's arms, side by side.

    python benchmarks/claim_figure.py --sweep runs/claim --out experiments/results/claim_xt.png

Of the first seed of `experiments/sweeps/single_pass_vs_cascade.py`, out of the sheets that
`stunet evaluate` wrote: three clips of each arm, real ones first, with the arm's coherent share.
"""

import argparse
import pathlib
import tempfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stunet import configs
from stunet.data import media, sources
from stunet.report import results
from stunet.report.results import by_seed
from stunet.report.statistics import t_interval
from stunet.train.parts import make_parts

ARMS = {
    "single_pass": "single pass",
    "windowed": "windowed cascade",
    "global": "global cascade",
    "windowed_true": "windowed, true keyframes",
    "global_true": "global, true keyframes",
}
CLIPS, CELL, GAP, TOP, LEFT = 3, 176, 8, 44, 52


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    groups = results.read(arguments.sweep).groups()
    band = TOP + CLIPS * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (LEFT + 6 * (CELL + GAP), len(groups) * band), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (group, arms) in enumerate(groups.items()):
        top = row * band
        draw.text((GAP, top + TOP), group, "black", font)
        config = next(runs[0].config for runs in arms.values() if runs[0].config)
        columns = [("real", "", _real(config))]
        for arm, words in ARMS.items():
            share = t_interval(list(by_seed(arms[arm], "coherent").values()))
            said = f"coherent {share.mean:.0%} ± {share.half:.0%}"
            columns.append((words, said, _slices(arms[arm][0].xt, config)))
        for column, (words, said, slices) in enumerate(columns):
            x = LEFT + column * (CELL + GAP)
            draw.text((x, top + 4), f"{words}\n{said}", "black", font)
            for i, image in enumerate(slices):
                image = image.resize((CELL, CELL), Image.Resampling.NEAREST)
                sheet.paste(image, (x, top + TOP + i * (CELL + GAP)))
    sheet.save(arguments.out, optimize=True)


def _real(config: configs.Experiment) -> list[Image.Image]:
    source = sources.make_source(make_parts(config).dataset, "val")
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "real.png")
        media.write_xt(file, np.stack([source[i]["video"] for i in range(CLIPS)]))
        return _slices(file, config)


def _slices(file: pathlib.Path, config: configs.Experiment) -> list[Image.Image]:
    """The slices of a sheet of `media.write_xt`: right of the frames, one below the other."""
    sheet = Image.open(file).convert("RGB")
    pixels = np.asarray(sheet)
    # Rows and columns that are paper from end to end lie between what is drawn.
    drawn = (pixels != pixels[0, 0]).any(-1)
    columns = _runs(drawn[: sheet.height // 8].any(0))
    rows = [run for run in _runs(drawn[:, columns[-1][0] :].any(1)) if run[1] - run[0] > 100]
    return [sheet.crop((columns[-1][0], low, columns[-1][1], high)) for low, high in rows[:CLIPS]]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where consecutive flags are set: [begin, end) of each stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


if __name__ == "__main__":
    main()
