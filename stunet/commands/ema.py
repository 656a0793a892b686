"""`stunet ema`: computes averages of a run's weights over any length, after training."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax

# Relative error of the weighting above which the user is told to take more snapshots.
_TOLERABLE = 0.03


def length(text: str) -> float:
    """Returns the length in `text`, a share of the updates that can be reconstructed."""
    from stunet.train.optim.power_ema import LONGEST, SHORTEST

    value = shared.number(text)
    if not SHORTEST <= value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not between {SHORTEST} and {LONGEST}")
    return value


def add_arguments(parser: Parser) -> None:
    shared.add_run(parser, "run with snapshots (train.ema_snapshots), such as runs/mine")
    parser.required.add_argument(
        "--length",
        required=True,
        nargs="+",
        type=length,
        metavar="SHARE",
        help="lengths of the averages: the standard deviation of the updates' weights, as a share "
        "of all updates; with 0.1, half of the weight lies on the last 8%% of them",
    )
    parser.options.add_argument(
        "--step",
        type=shared.positive,
        metavar="N",
        help="update after which the averages end, which must have a snapshot (default: that of "
        "the newest snapshot)",
    )


def run(arguments: argparse.Namespace) -> None:
    set_up_jax()
    from stunet.train.saved import snapshots

    for made in snapshots.reconstruct(arguments.workdir, arguments.length, arguments.step):
        print(
            f"length {made.length:g} after update {made.step}, from {made.snapshots} snapshots, "
            f"weights within {made.error:.1%}: {made.file}"
        )
        if made.error > _TOLERABLE:
            print("  more snapshots or another length would come closer to the exact average")


COMMAND = Command(
    "average a run's weights over other lengths, after training",
    add_arguments,
    run,
    (
        "stunet ema --workdir runs/mine --length 0.05 0.1 0.2",
        "stunet ema --workdir runs/mine --length 0.15 --step 20000",
    ),
)
