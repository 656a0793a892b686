"""`stunet gallery`: shows sampled clips on one page of HTML."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "places",
        nargs="+",
        type=shared.path,
        metavar="DIR",
        help="directory with clips of `stunet sample --arrays` or `stunet data`, at any depth; or "
        "one of their .npz files",
    )
    parser.required.add_argument(
        "--out", required=True, type=shared.path, metavar="FILE", help="HTML file to write"
    )
    parser.options.add_argument(
        "--title",
        default="Gallery",
        metavar="WORDS",
        help="title of the page (default %(default)s)",
    )
    parser.options.add_argument(
        "--note", metavar="WORDS", help="text below the title (default: none)"
    )


def run(arguments: argparse.Namespace) -> None:
    from stunet.report.gallery import write_gallery

    count = write_gallery(arguments.places, arguments.out, arguments.title, arguments.note or "")
    print(f"gallery    {arguments.out} ({count} clips)")


COMMAND = Command(
    "show sampled clips on one page of HTML",
    add_arguments,
    run,
    (
        "stunet gallery runs/quickstart/samples --out gallery.html",
        'stunet gallery runs/data runs/quickstart/samples --out gallery.html --title "My clips"',
    ),
)
