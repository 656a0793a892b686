"""`stunet evaluate`: measures how the clips of a trained run move."""

import argparse
import pathlib

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.progress import metrics_bar, sampling_bar


def add_arguments(parser: Parser) -> None:
    shared.add_run(parser)
    parser.options.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="metrics to compute, any of: coherence (do objects keep their velocity and shape), "
        "pixels (differences between frames), flow (optical flow) and fvd (default: all but fvd, "
        "or those of the protocol); or PACKAGE.MODULE:NAME, a metric of your own",
    )
    parser.options.add_argument(
        "--protocol",
        type=shared.file_with("get_protocol"),
        metavar="NAME",
        help="prompts and real clips to compare with: a protocol that comes with stunet "
        "(--protocol help lists them), such as ucf101_zero_shot, or a Python file with "
        "get_protocol() (default: held-out clips of the run's own data)",
    )
    parser.options.add_argument(
        "--num",
        type=shared.positive,
        metavar="N",
        help="clips to sample (default 64, or the protocol's number)",
    )
    shared.add_cascade(parser)
    shared.add_sampling(parser)
    parser.options.add_argument(
        "--batch-size",
        type=shared.positive,
        default=32,
        metavar="N",
        help="clips sampled at once (default %(default)s)",
    )
    parser.options.add_argument(
        "--window",
        type=shared.positive,
        default=0,
        metavar="N",
        help="also report how much the velocity jumps at the borders between windows of N frames; "
        "sampling does not change (default with --tsr: the windows of the --tsr run)",
    )
    parser.options.add_argument(
        "--out",
        type=shared.path,
        metavar="DIR",
        help="directory for evaluation.json, samples/ and evaluation/ (default: --workdir)",
    )


def run(arguments: argparse.Namespace) -> None:
    set_up_jax()
    from stunet.evaluate import metrics
    from stunet.evaluate.run import evaluate

    evaluation = evaluate(
        arguments.workdir,
        metrics=arguments.metrics,
        protocol=arguments.protocol and pathlib.Path(arguments.protocol),
        tsr=arguments.tsr,
        augmentation=arguments.augmentation,
        out=arguments.out,
        num=arguments.num,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        window=arguments.window,
        on_step=sampling_bar(),
        on_clips=metrics_bar(),
        **shared.sampling_settings(arguments),
    )
    print(metrics.table(evaluation.columns, known=evaluation.rows, titles=evaluation.titles))
    print(f"\n{evaluation.summary()}\nwritten to {evaluation.file}")


COMMAND = Command(
    "measure how the clips of a trained run move",
    add_arguments,
    run,
    (
        "stunet evaluate --workdir runs/quickstart",
        "stunet evaluate --workdir runs/quickstart --metrics coherence,flow --num 256 --out judged",
    ),
)
