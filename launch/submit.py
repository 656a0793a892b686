#!/usr/bin/env python3
"""Submits a `stunet` command, or each member of a sweep, to TPUs, GPUs or a Ray cluster elsewhere.

    launch/submit.py gke --name base --topology v5p:4x4x4 --image IMAGE -- \\
        stunet train --config experiments/lumiere_base.py --workdir gs://BUCKET/runs/base
"""

import argparse
import functools
import os
import sys

# Checking sweep files and configs needs no accelerator. The first import of JAX reads this.
os.environ["JAX_PLATFORMS"] = "cpu"

import bash
from local import at_least
from targets import gke, ray, slurm, tpu, xpk

from stunet.commands.parsing import Command, Group, Parser, run

PROG = "launch/submit.py"

ABOUT = """\
Submits a stunet command, or each member of a sweep, to TPUs or GPUs elsewhere,
or stunet prepare to a Ray cluster.

With --dry-run it only prints the bash script that it would otherwise run. The
config and its mesh are checked on this machine before anything is submitted.
A job that fails or is preempted restarts and continues from its latest
checkpoint. Each gs:// bucket in the command is mounted in every container, or
with --no-mount opened by stunet.
Each host's output is kept in launch/ under the working directory, and of
prepare beside the shots"""

TARGETS = {"tpu": tpu, "gke": gke, "xpk": xpk, "slurm": slurm, "ray": ray}


def main(argv: list[str] | None = None) -> int:
    """Runs `launch/submit.py TARGET ...`. Returns the exit status."""
    return run(commands(), PROG, sys.argv[1:] if argv is None else argv)


def commands() -> Group:
    """Returns the table of targets, each a command."""
    found = {
        name: Command(
            target.SUMMARY,
            functools.partial(add_arguments, target),
            functools.partial(submit, target),
            target.EXAMPLES,
        )
        for name, target in TARGETS.items()
    }
    return Group(ABOUT, "target", found, (gke.EXAMPLES[0], slurm.EXAMPLES[0]))


def add_arguments(target, parser: Parser) -> None:
    """Adds the arguments of all targets, and those of `target` between them."""
    parser.required.add_argument(
        "--name",
        required=True,
        metavar="NAME",
        help="name of the job: lower-case letters, digits and dashes",
    )
    target.add_arguments(parser)
    parser.options.add_argument(
        "--restarts",
        type=at_least(0),
        default=10,
        metavar="N",
        help="number of restarts, whatever ended the job (default %(default)s)",
    )
    parser.options.add_argument(
        "--dry-run", action="store_true", help="print the script, and submit nothing"
    )
    parser.required.add_argument(
        "command",
        nargs="+",
        metavar="-- COMMAND",
        help="stunet train or stunet sweep, and for ray stunet prepare, with its arguments, after "
        "two dashes",
    )


def submit(target, arguments: argparse.Namespace) -> int:
    """Submits the jobs, or prints the script that does.

    Returns:
        The exit status.
    """
    found = target.make_jobs(arguments)
    script = bash.combine([target.script(job, arguments) for job in found])
    if arguments.dry_run:
        print(script)
        return 0
    if bash.run(script):
        print(
            f"{PROG}: {arguments.name} failed, for the reason above; --dry-run shows what was run",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
