"""`stunet plan`: predicts whether a run fits on TPUs or GPUs, and how fast it is."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import compile_for_elsewhere
from stunet.errors import UserError
from stunet.plan.tpus import GENERATIONS
from stunet.progress import elapsed


def add_arguments(parser: Parser) -> None:
    shared.add_config(parser, "lumiere_base")
    parser.required.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="TPUs as Google Cloud calls them (v5e-16, v5p-128, tpu7x-128), or by generation "
        f"({', '.join(GENERATIONS)}) and shape (v5p:4x4x4); or GPUs by name and "
        "number in each host (rtx4090:1, a100-80gb:1, h100:8); or local, for this machine's "
        "devices",
    )
    parser.options.add_argument(
        "--slices",
        type=shared.positive,
        default=1,
        metavar="N",
        help="number of TPU slices or of GPU hosts, each as --topology says (default %(default)s)",
    )
    parser.options.add_argument(
        "--estimate",
        action="store_true",
        help="trace the program without compiling it, and estimate memory and a lower bound of "
        "the step's time (the command takes half a minute); the default for GPUs if JAX's CUDA "
        "plugin is not installed",
    )
    parser.options.add_argument(
        "--memory-only",
        action="store_true",
        help="report only memory; the report then takes a fraction of the time",
    )
    parser.options.add_argument(
        "--every-block",
        action="store_true",
        help="compile every block; without this option, the run time of wide blocks is "
        "extrapolated from that of narrower ones, with an error of a few percent",
    )
    parser.options.add_argument(
        "--search",
        action="store_true",
        help="rank all combinations of mesh, remat policy and microbatches that fit, and plan the "
        "best one",
    )
    parser.options.add_argument("--json", action="store_true", help="print JSON")
    parser.add_keys("--config.mesh.context=4")


def run(arguments: argparse.Namespace) -> None:
    if arguments.topology != "local":
        compile_for_elsewhere()
    from stunet import configs
    from stunet.plan import chips, report, search
    from stunet.plan.plan import make_plan
    from stunet.train.parts import bucket_configs, make_parts

    config = configs.load(arguments.config, arguments.overrides)
    topology = chips.find(arguments.topology, arguments.slices, arguments.estimate)
    target = f"{topology.chips} x {topology.chip.name}"
    if arguments.search:
        with elapsed(f"searching layouts for {target}"):
            layouts = search.rank(make_parts(config), topology)
        if not arguments.json:
            print(report.ranking(layouts, topology), end="\n\n", flush=True)
        config = layouts[0].apply_to(config)
    task, plans = f"{'compiling' if topology.devices else 'estimating'} for {target}", {}
    several = bucket_configs(config)
    for name, one in several.items():
        with elapsed(f"{task}, clips of {name}" if len(several) > 1 else task):
            plans[name] = make_plan(one, topology, not arguments.memory_only, arguments.every_block)
    print(report.as_json(plans) if arguments.json else report.as_text(plans))
    largest = max(plans, key=lambda name: plans[name].excess or 0)
    plan = plans[largest]
    if plan.excess:
        message = "by estimate, " if plan.estimated else ""
        message += f"the program does not fit {plan.chip}: it needs "
        message += f"{plan.excess / 2**30:.2f} GiB more than a chip has"
        message += f" for clips of {largest}" if len(plans) > 1 else ""
        if not topology.is_local:
            parts = make_parts(several[largest])
            overrides = search.suggest_overrides(parts, plan.mesh, topology)
            message += "; by estimate, "
            message += f"it fits with {' '.join(overrides)}" if overrides else "no layout fits"
        raise UserError(message)


COMMAND = Command(
    "predict whether a run fits on TPUs or GPUs, and how fast it trains",
    add_arguments,
    run,
    (
        "stunet plan --config lumiere_base --topology v5p-128 --memory-only",
        "stunet plan --config quickstart --topology local --config.train.batch_size=8",
    ),
)
