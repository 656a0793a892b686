"""Defines the command line of `stunet`: a table of its commands by name."""

import atexit
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from stunet.commands import compile as compile_step
from stunet.commands import (
    data,
    demo,
    doctor,
    ema,
    evaluate,
    export,
    gallery,
    inflate,
    plan,
    prepare,
    report,
    sample,
    sweep,
    train,
)
from stunet.commands.parsing import Group, run
from stunet.commands.version import version

STUNET = Group(
    "Space-Time U-Nets: video diffusion over the whole clip in a single pass",
    "command",
    {
        "train": train.COMMAND,
        "sample": sample.COMMAND,
        "demo": demo.COMMAND,
        "evaluate": evaluate.COMMAND,
        "prepare": prepare.COMMAND,
        "data": data.COMMAND,
        "plan": plan.COMMAND,
        "compile": compile_step.COMMAND,
        "inflate": inflate.COMMAND,
        "ema": ema.COMMAND,
        "export": export.COMMAND,
        "sweep": sweep.COMMAND,
        "report": report.COMMAND,
        "gallery": gallery.COMMAND,
        "doctor": doctor.COMMAND,
    },
    examples=(train.COMMAND.examples[0], sample.COMMAND.examples[0]),
    options={"--version": ("print the versions of stunet, JAX, its backends and Python", version)},
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `stunet COMMAND ...`.

    Returns:
        The exit status: 0, or 1 after a user's mistake. If `stunet train` is stopped early,
        the status is the value of `--stop-status`.

    Raises:
        SystemExit: the arguments of the command are wrong (status 2), or the user asked for help.
    """
    try:
        try:
            return run(STUNET, "stunet", sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, such as `head`, has ended. Python would flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def main_process() -> NoReturn:
    """Runs `main` as the whole work of this process, and ends it with the exit status.

    Exit handlers run. Python's objects are not freed one by one: threads of JAX and TensorStore
    may then wait for Python's lock for ever, and a process whose work is done never ends.
    """
    status = main()
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main_process()
