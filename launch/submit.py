#!/usr/bin/env python3
"""Submits a `stunet` command, or each member of a sweep, to where there are TPUs or GPUs.

    launch/submit.py gke --name base --topology v5p:4x4x4 --image IMAGE -- \\
        stunet train --config experiments/lumiere_base.py --workdir gs://BUCKET/runs/base

With --dry-run it only prints the bash script that it would otherwise run. The config and its mesh
are checked on this machine before anything is submitted. A job that fails or is preempted restarts
and continues from its latest checkpoint. Each `gs://` bucket in the command is mounted in every
container. Each host's output is kept in launch/ under the working directory.
"""

import argparse
import os
import subprocess
import sys

# Checking sweep files and configs needs no accelerator. The first import of JAX reads this.
os.environ["JAX_PLATFORMS"] = "cpu"

import bash
import jobs
from local import at_least
from targets import gke, slurm, tpu, xpk

from stunet.errors import UserError

TARGETS = {"tpu": tpu, "gke": gke, "xpk": xpk, "slurm": slurm}


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    target = TARGETS[arguments.target]
    try:
        devices, slices = target.devices(arguments)
        found = jobs.make_jobs(
            arguments.name,
            arguments.command,
            arguments.restarts,
            devices=devices,
            slices=slices,
            on_buckets=target.ON_BUCKETS,
        )
        scripts = [target.script(job, arguments) for job in found]
    except UserError as error:
        print(f"launch/submit.py: {error}", file=sys.stderr)
        return 1
    whole = bash.combine(scripts)
    if arguments.dry_run:
        print(whole)
        return 0
    if subprocess.run(["bash", "-c", whole], check=False).returncode:
        print(
            f"launch/submit.py: {arguments.name} failed, for the reason above; --dry-run shows "
            "what was run",
            file=sys.stderr,
        )
        return 1
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/submit.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    targets = parser.add_subparsers(dest="target", required=True, metavar="TARGET")
    for name, target in TARGETS.items():
        sub = targets.add_parser(
            name,
            help=target.__doc__,
            description=target.__doc__,
            epilog="after --, the command: stunet train ..., or stunet sweep ...",
            allow_abbrev=False,
        )
        sub.add_argument("--name", required=True, help="of the job")
        target.add_arguments(sub)
        sub.add_argument(
            "--restarts", type=at_least(0), default=10, help="after whatever ended it (10)"
        )
        sub.add_argument("--dry-run", action="store_true", help="print the script")
        sub.add_argument("command", nargs="+", metavar="-- COMMAND", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
