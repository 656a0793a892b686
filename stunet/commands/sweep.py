"""`stunet sweep`: trains each member of a sweep."""

import argparse
import os
import shlex
import typing

from stunet import extensions
from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.stores.addresses import shown

if typing.TYPE_CHECKING:
    from stunet.sweep.members import Sweep


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "--config",
        required=True,
        type=shared.file_with("get_sweep"),
        metavar="NAME",
        help="sweep that comes with stunet (--config help lists them), such as "
        "temporal_downsampling; or a Python file with get_sweep()",
    )
    parser.required.add_argument(
        "--workdir",
        required=True,
        type=shared.path,
        metavar="DIR",
        help="directory for all output; if it holds this sweep already, the sweep continues there",
    )
    parser.options.add_argument(
        "--jobs",
        type=shared.positive,
        default=1,
        metavar="N",
        help="processes that run at once (default %(default)s)",
    )
    parser.options.add_argument(
        "--dry-run",
        action="store_true",
        help="write the config of each member and print the commands, for a scheduler; train "
        "nothing",
    )
    parser.add_keys("--config.train.steps=2000")


def run(arguments: argparse.Namespace) -> None:
    environment = dict(os.environ)
    # The file of a sweep may count operations with JAX, for which this process needs no
    # accelerator: the members need it. The first import of JAX reads this.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from stunet.sweep import copies, members

    sweep = members.load(arguments.config, arguments.overrides)
    names = [entry.name for entry in sweep.entries]
    with copies.copied(arguments.workdir, names):
        _claim_and_run(arguments, sweep, environment)


def _claim_and_run(
    arguments: argparse.Namespace, sweep: "Sweep", environment: dict[str, str]
) -> None:
    from stunet.sweep import copies, run, workdir

    made_by = ["sweep", "--config", arguments.config, "--workdir", shown(str(arguments.workdir))]
    workdir.claim(arguments.workdir, sweep, made_by + arguments.overrides)
    entries = sweep.entries
    # What was claimed is there before the first member trains, for any machine.
    copies.upload(arguments.workdir, [entry.name for entry in entries])
    if arguments.dry_run:
        lines, packages = [], os.environ.get(extensions.TRUST)
        trust = ["--trust", packages] if packages else []
        done = workdir.find_done(arguments.workdir, entries)
        for entry in entries:
            if entry.name not in done:
                line = shlex.join(["stunet", *workdir.arguments(arguments.workdir, entry), *trust])
                needs = ", ".join(entry.after)
                lines.append(f"{line}  # after {needs}" if needs else line)
        # In one call, for readers such as `head`, which close the pipe after the first lines.
        print("\n".join(lines), end="\n" if lines else "")
        return
    run.run(arguments.workdir, entries, arguments.jobs, environment)
    print(f"all {len(entries)} done; {shlex.join(['stunet', 'report', str(arguments.workdir)])}")


COMMAND = Command(
    "train the members of a sweep, or continue with those left",
    add_arguments,
    run,
    (
        "stunet sweep --config temporal_downsampling --workdir runs/downsampling --jobs 2",
        "stunet sweep --config temporal_downsampling --workdir runs/downsampling --dry-run "
        "--config.train.steps=2000",
    ),
    # Only while this sweep holds the lease may its files replace those in the bucket.
    opens=("workdir",),
)
