"""`stunet doctor`: says what is wrong with an installation or a run, and what to do."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax


def add_arguments(parser: Parser) -> None:
    parser.options.add_argument(
        "--workdir",
        type=shared.path,
        metavar="DIR",
        help="also check the working directory of a run or of a sweep, such as runs/quickstart: "
        "config, metrics, each array of each checkpoint, and the records of the data",
    )


def run(arguments: argparse.Namespace) -> int:
    set_up_jax()
    from stunet.doctor import devices, installation, workdir

    parts = [installation.check(), devices.check()]
    if arguments.workdir:
        parts.append(workdir.check(arguments.workdir))
    checks = problems = 0
    for part in parts:
        for finding in part:
            print(finding, flush=True)
            checks += 1
            problems += finding.is_wrong
    print(f"{problems} of {checks} checks found something wrong" if problems else "all is well")
    return 1 if problems else 0


COMMAND = Command(
    "say what is wrong with this installation or a run, and what to do",
    add_arguments,
    run,
    (
        "stunet doctor",
        "stunet doctor --workdir runs/quickstart",
    ),
)
