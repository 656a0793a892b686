"""`stunet compile`: compiles a run's update ahead of time, and saves it for `stunet train`."""

import argparse
import contextlib

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import compile_for_elsewhere, set_up_jax
from stunet.errors import UserError
from stunet.files import check_writable, refusal_explained
from stunet.plan.tpus import GENERATIONS
from stunet.progress import elapsed

_ELSEWHERE = "choose another place for the file"


def add_arguments(parser: Parser) -> None:
    shared.add_config(parser, "lumiere_base")
    parser.required.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="TPUs as Google Cloud calls them (v5e-16, v5p-128, tpu7x-128), or by generation "
        f"({', '.join(GENERATIONS)}) and shape (v5p:4x4x4); or local, for this machine's devices",
    )
    parser.required.add_argument(
        "--out", required=True, type=shared.path, metavar="FILE", help="file to write"
    )
    parser.options.add_argument(
        "--slices",
        type=shared.positive,
        default=1,
        metavar="N",
        help="number of TPU slices, each as --topology says (default %(default)s)",
    )
    parser.add_keys("--config.train.batch_size=64")


def run(arguments: argparse.Namespace) -> None:
    local = arguments.topology == "local"
    set_up_jax() if local else compile_for_elsewhere()
    import jax

    from stunet import configs
    from stunet.parallel import mesh as meshes
    from stunet.plan import chips
    from stunet.plan.compiled_step import read_refusal
    from stunet.train import program
    from stunet.train.parts import make_parts

    parts = make_parts(configs.load(arguments.config, arguments.overrides))
    topology = chips.find(arguments.topology, arguments.slices)
    if topology.platform == "cuda":
        raise UserError(
            "the compiler tries programs for GPUs on the GPU itself; run this command there, with "
            "--topology local"
        )
    # A file that cannot be written is reported now: compiling may take an hour.
    check_writable(arguments.out.parent, _ELSEWHERE)
    if arguments.out.is_dir():
        raise UserError(f"--out {arguments.out} is a directory; {_ELSEWHERE}")
    mesh = meshes.make_mesh(parts.layout, topology.devices)
    for bucket in parts.buckets:
        meshes.check_batch(bucket.batch_size, parts.accumulate, mesh)
    silence = contextlib.nullcontext() if local else chips.silence_stderr()
    task = f"compiling for {topology.chips} x {topology.chip.name}"
    with elapsed(task), silence, refusal_explained(arguments.out, _ELSEWHERE):
        for bucket in parts.buckets:
            lowered = program.lower(parts.only(bucket), mesh)
            try:
                program.save(lowered, mesh, program.file_of(arguments.out, parts, bucket))
            except jax.errors.JaxRuntimeError as error:
                refused = read_refusal(str(error))
                raise UserError(
                    f"the program does not fit {topology.chip.name}: it needs "
                    f"{refused.excess / 2**30:.2f} GiB more than a chip has; `stunet plan` says "
                    "what makes it fit"
                ) from error
    for bucket in parts.buckets:
        file = program.file_of(arguments.out, parts, bucket)
        print(f"{file.stat().st_size / 2**20:.2f} MiB  {file}")


COMMAND = Command(
    "compile a run's update ahead of time, for stunet train --compiled",
    add_arguments,
    run,
    (
        "stunet compile --config lumiere_base --topology v5p-128 --out base.program",
        "stunet compile --config quickstart --topology local --out quickstart.program",
    ),
)
