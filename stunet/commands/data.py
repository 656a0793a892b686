"""`stunet data`: writes clips of a config's data as files."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import choose


def add_arguments(parser: Parser) -> None:
    shared.add_config(parser, "quickstart")
    parser.required.add_argument(
        "--out",
        required=True,
        type=shared.path,
        metavar="DIR",
        help="directory for the files; it is made if it does not exist",
    )
    parser.options.add_argument(
        "--split",
        choices=("train", "val"),
        default="train",
        help="train, or val for held-out clips (default %(default)s)",
    )
    parser.options.add_argument(
        "--source",
        default="main",
        metavar="NAME",
        help="which source: main, or a name in data.mix (default %(default)s)",
    )
    parser.options.add_argument(
        "--num",
        type=shared.positive,
        default=8,
        metavar="N",
        help="number of clips; the pictures of several show 64 at most (default %(default)s)",
    )
    parser.add_keys("--config.data.look=colours")


def run(arguments: argparse.Namespace) -> None:
    from stunet import configs

    config = configs.load(arguments.config, arguments.overrides)
    set_up_jax()
    from stunet.generate import data
    from stunet.train.parts import make_parts

    parts = make_parts(config)
    sources = {of.name: of.dataset for of in parts.sources} | {configs.MAIN: parts.dataset}
    dataset = choose(sources, arguments.source, "source")
    options = (arguments.split, arguments.num, arguments.command_line)
    for what, file in data.write(arguments.out, dataset, *options).items():
        print(f"{what:9}  {file}")


COMMAND = Command(
    "write clips of a config's data as files, to look at them",
    add_arguments,
    run,
    (
        "stunet data --config quickstart --out runs/data",
        "stunet data --config quickstart --out runs/data --split val --num 4",
    ),
)
