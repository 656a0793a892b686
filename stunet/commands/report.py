"""`stunet report`: shows a sweep, or a run, on one page of HTML."""

import argparse
import os

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "workdir",
        type=shared.path,
        metavar="WORKDIR",
        help="working directory of a sweep or of a run",
    )
    parser.options.add_argument(
        "--out",
        type=shared.path,
        metavar="FILE",
        help="HTML file to write (default: report.html in WORKDIR)",
    )


def run(arguments: argparse.Namespace) -> None:
    # A report counts operations with JAX, for which it needs no accelerator. The first import of
    # JAX reads this.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from stunet.report.report import write_report

    out = arguments.out or arguments.workdir / "report.html"
    write_report(arguments.workdir, out)
    print(f"report     {out}")


COMMAND = Command(
    "show a sweep, or a run, on one page of HTML",
    add_arguments,
    run,
    (
        "stunet report runs/downsampling",
        "stunet report runs/quickstart --out quickstart.html",
    ),
)
