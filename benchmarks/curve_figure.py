"""Draws the curves of a sweep over a property of each clip as an SVG, as its report shows them.

    python benchmarks/curve_figure.py --sweep runs/curve --out curve.svg

The sweep's file says which curves there are (`stunet.sweep.curves.Curves`). As in the report,
unfinished runs are left out.
"""

import argparse
import pathlib

from stunet.errors import UserError
from stunet.files import atomic
from stunet.report import binning, covariates, results
from stunet.report.report import arrange
from stunet.sweep.workdir import read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sweep", type=pathlib.Path, required=True, help="directory of the sweep (required)"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="SVG to write (required)")
    parser.add_argument(
        "--curves", type=int, default=0, metavar="N", help="number of the curves (default 0)"
    )
    parser.add_argument(
        "--group", default="", help="group of the sweep (default: the first one with curves)"
    )
    arguments = parser.parse_args()
    try:
        draw(arguments.sweep, arguments.out, arguments.curves, arguments.group)
    except UserError as error:
        parser.error(str(error))


def draw(sweep: pathlib.Path, file: pathlib.Path, number: int = 0, group: str = "") -> None:
    """Draws the curves of one group.

    Args:
        sweep: directory of the sweep.
        file: SVG to write.
        number: number of the curves among those that the sweep asks for.
        group: name of the group; "" for the first one with curves.

    Raises:
        UserError: the directory holds no sweep with such curves.
    """
    manifest = read_manifest(sweep)
    asked = manifest.curves if manifest else ()
    if not 0 <= number < len(asked):
        raise UserError(f"{sweep} asks for {len(asked)} curves; there is no --curves {number}")
    groups, colours = arrange(results.read(sweep))
    finished = {name: results.finished(arms) for name, arms in groups.items()}
    figures = binning.measure(asked[number], finished)
    group = group or next(iter(figures), "")
    if group not in figures:
        raise UserError(f"{sweep} has no curves of the group {group!r}; it has {list(figures)}")
    title = f"{asked[number].title}, {group}" if group else asked[number].title
    with atomic(file) as partial:
        partial.write_text(covariates.picture(figures[group], colours, title), encoding="utf-8")


if __name__ == "__main__":
    main()
