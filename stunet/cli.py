"""The command line: one table, from a name to a command."""

import sys
from collections.abc import Sequence

from stunet.commands import evaluate, export, inflate, plan, prepare, report, sample, sweep, train
from stunet.commands.parsing import Group
from stunet.commands.version import version
from stunet.errors import UserError

STUNET = Group(
    "Space-Time U-Nets: video diffusion over the whole clip in a single pass",
    "command",
    {
        "train": train.COMMAND,
        "sample": sample.COMMAND,
        "evaluate": evaluate.COMMAND,
        "prepare": prepare.COMMAND,
        "plan": plan.COMMAND,
        "inflate": inflate.COMMAND,
        "export": export.COMMAND,
        "sweep": sweep.COMMAND,
        "report": report.COMMAND,
    },
    examples=(train.COMMAND.examples[0], sample.COMMAND.examples[0]),
    options={"--version": "print the versions of stunet, JAX, its backends and Python, and exit"},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `stunet COMMAND ...`.

    Returns:
        The exit status: 0, or 1 after a mistake of the user's, or what `stunet train
        --stop-status` says.

    Raises:
        SystemExit: the arguments of the command are wrong (status 2), or its help was asked for.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    prog, entry = "stunet", STUNET
    try:
        while isinstance(entry, Group):
            if words[:1] in (["-h"], ["--help"]):
                print(entry.help(prog))
                return 0
            if entry is STUNET and words[:1] == ["--version"]:
                print(version())
                return 0
            name, entry = entry.choose(words)
            prog, words = f"{prog} {name}", words[1:]
        return entry.run(entry.parser(prog).parse(words)) or 0
    except UserError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
