"""`stunet train`: trains a config, or continues a run."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import choose
from stunet.files import refusals_explained


def add_arguments(parser: Parser) -> None:
    shared.add_config(parser, "quickstart")
    parser.required.add_argument(
        "--workdir",
        required=True,
        type=shared.path,
        metavar="DIR",
        help="directory for all output; if it holds this run already, training continues there",
    )
    parser.options.add_argument(
        "--member", metavar="NAME", help="member to train, if --config is the file of a sweep"
    )
    parser.options.add_argument(
        "--change",
        action="append",
        metavar="KEY=VALUE",
        help="when a run continues, change a KEY of the config's group 'train' (such as "
        "train.learning_rate, train.weight_decay, train.clip_norm or train.steps) from the run's "
        "next update on; without =VALUE, KEY gets the value that it has in --config; may be given "
        "several times",
    )
    parser.options.add_argument(
        "--stop-status",
        type=_status,
        default=0,
        metavar="N",
        help="exit status if SIGTERM, SIGHUP or Ctrl-C ends training early, 0 to 255 "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--compiled",
        type=shared.path,
        metavar="FILE",
        help="file that keeps the compiled update, so that a restart need not compile it, even on "
        "other hosts; `stunet compile` writes the file ahead of time, otherwise the first start of "
        "the run does; if the file does not fit the run, training says why and compiles; take it "
        "only from people you trust, since it is a program",
    )
    processes = parser.add_argument_group(
        "several processes",
        "TPU pods, GKE and SLURM need none of these: JAX finds the processes there.\n"
        "Elsewhere, start each process with all three.",
    )
    processes.add_argument(
        "--coordinator", metavar="HOST:PORT", help="address at which process 0 listens"
    )
    processes.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="number of processes; with 1, this process trains alone, even on a TPU pod",
    )
    processes.add_argument(
        "--process", type=int, metavar="I", help="number of this process, from 0"
    )
    parser.add_keys("--config.train.steps=2000")


def run(arguments: argparse.Namespace) -> int:
    from stunet import configs
    from stunet.sweep import members, workdir

    # The file of a sweep may count operations with JAX, which must not start before the hosts
    # have joined.
    changes = arguments.change or ()
    arguments.overrides += [f"--config.{change}" for change in changes if "=" in change]
    changing = [_changing(change.partition("=")[0]) for change in changes]
    config = None
    if arguments.member is None:
        config = configs.load(arguments.config, arguments.overrides)
    set_up_jax()
    from stunet.evaluate.in_training import make_evaluation
    from stunet.parallel import hosts
    from stunet.train.loop import train
    from stunet.train.parts import make_parts, with_fingerprint

    hosts.join(arguments.coordinator, arguments.processes, arguments.process)
    with hosts.failing_together("stunet train"), refusals_explained():
        if config is None:
            member = members.find(arguments.config, arguments.member, arguments.overrides)
            config = workdir.config_of(arguments.workdir.parent, member)
        parts = make_parts(with_fingerprint(config))
        step = train(parts, arguments.workdir, changing, arguments.compiled, make_evaluation)
    if hosts.is_first():
        print(f"metrics      {arguments.workdir / 'metrics.jsonl'}")
        print(f"checkpoints  {arguments.workdir / 'checkpoints'}")
    return arguments.stop_status if step < config.train.steps else 0


def _changing(key: str) -> str:
    """Checks that `stunet train --change` may change the config key `key`, and returns `key`.

    Raises:
        UserError: there is no such key, or its value must not change when a run continues.
    """
    from stunet import configs

    return choose(configs.MAY_CHANGE_BY_NAME, key, "key of --change") and key


def _status(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not an exit status, 0 to 255")
    return int(text)


COMMAND = Command(
    "train a config, or continue a run",
    add_arguments,
    run,
    (
        "stunet train --config quickstart --workdir runs/quickstart",
        "stunet train --config quickstart --workdir runs/short --config.train.steps=100 "
        "--config.data.frames=8",
    ),
    # Only while this training holds the lease may its files replace those in the bucket.
    opens=("workdir",),
)
