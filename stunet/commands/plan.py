"""`stunet plan`: predicts whether a run fits TPUs or this machine, and how fast it is."""

import argparse
import contextlib
import os

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.errors import UserError
from stunet.plan.topology_names import to_shape
from stunet.progress import elapsed


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help="experiment that comes with stunet, such as lumiere_base; or a Python file with "
        "get_config(), or the config.json of a run",
    )
    parser.required.add_argument(
        "--topology",
        required=True,
        type=to_shape,
        metavar="NAME",
        help="slice of TPUs as Google Cloud calls it, such as v5e-16, v6e-64 or v5p-128; or its "
        "generation and shape, such as v5p:4x4x4; or local, for this machine's devices",
    )
    parser.options.add_argument(
        "--slices",
        type=shared.positive,
        default=1,
        metavar="N",
        help="slices of that topology (default %(default)s)",
    )
    parser.options.add_argument(
        "--memory-only",
        action="store_true",
        help="report memory only, which takes a fraction of the time",
    )
    parser.options.add_argument(
        "--every-block",
        action="store_true",
        help="compile every block; otherwise the time of wide blocks is scaled from narrower ones, "
        "and is a few percent off",
    )
    parser.options.add_argument(
        "--search",
        action="store_true",
        help="rank the meshes, remat policies and microbatches that fit, and plan the first",
    )
    parser.options.add_argument("--json", action="store_true", help="print JSON")
    parser.add_keys("--config.mesh.context=4")


def run(arguments: argparse.Namespace) -> None:
    local = arguments.topology == "local"
    if not local:
        # Compiling for chips that are elsewhere needs no chip here, and must not look for one. The
        # first import of JAX reads these.
        os.environ |= {
            "JAX_PLATFORMS": "cpu",
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
    from stunet import configs
    from stunet.plan import chips, costs, report, search
    from stunet.plan.plan import make_plan

    config = configs.load(arguments.config, arguments.overrides)
    chip, devices = chips.devices(arguments.topology, arguments.slices)
    if arguments.search:
        with elapsed(f"searching layouts for {len(devices)} x {chip.name}"):
            found = search.rank(config, chip, len(devices), arguments.slices)
        if not arguments.json:
            print(report.ranking(found, chip), end="\n\n", flush=True)
        config = found[0].applied(config)
    topology = None if local else (arguments.topology, arguments.slices)
    with (
        elapsed(f"compiling for {len(devices)} x {chip.name}"),
        contextlib.nullcontext()
        if arguments.memory_only or local  # Only the compiler for TPUs estimates time.
        else costs.Costs(config, *topology, scale=not arguments.every_block) as pieces,
    ):
        plan = make_plan(config, chip, devices, topology, pieces)
    print(report.as_json(plan) if arguments.json else report.text(plan))
    if plan.over:
        message = f"the program does not fit {chip.name}, by {plan.over / 2**30:.2f} GiB"
        if not local:
            changes = search.remedy(config, plan.mesh, chip, arguments.slices)
            message += "; by estimate, "
            message += f"it would with {' '.join(changes)}" if changes else "no layout would"
        raise UserError(message)


COMMAND = Command(
    "predict whether a run fits TPUs or this machine, and how fast",
    add_arguments,
    run,
    (
        "stunet plan --config lumiere_base --topology v5p-128 --memory-only",
        "stunet plan --config quickstart --topology local --config.train.batch_size=8",
    ),
)
