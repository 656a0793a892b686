"""`stunet export`: writes a trained run for use elsewhere."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError, choose
from stunet.export import formats

# Option of a format -> its flag.
FLAGS = {
    "dtype": "--dtype",
    "prompt": "--prompt",
    "push": "--push",
    "public": "--public",
    "steps": "--steps",
    "sampler": "--sampler",
    "guidance_scale": "--guidance",
    "autoguidance_scale": "--autoguidance",
}


def add_arguments(parser: Parser) -> None:
    shared.add_run(parser)
    parser.required.add_argument(
        "--out", required=True, type=shared.path, metavar="DIR", help="directory to create"
    )
    parser.required.add_argument(
        "--format",
        required=True,
        metavar="NAME",
        help="; ".join(f"{name}: {form.summary}" for name, form in formats.FORMATS.items()),
    )
    parser.options.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="precision of the weights (default: float32, or, if the run has frozen weights, the "
        "precision in which it stores them)",
    )
    parser.options.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="for hub: also upload to this repository of the Hugging Face hub, which is made "
        "private if it does not exist",
    )
    parser.options.add_argument(
        "--public",
        action="store_true",
        default=None,
        help="for safetensors: leave out of the weights' config what names files and directories "
        "of this machine, except for a text encoder's",
    )
    shared.add_checkpoint(parser.options)
    programs = parser.add_argument_group(
        "options of stablehlo, savedmodel and hub",
        "The programs sample with these settings, which cannot change later.",
    )
    programs.add_argument(
        "--prompt",
        action="append",
        metavar="WORDS",
        help="prompt to encode and write beside the programs, and for hub to sample; give --prompt "
        "again for more (default for hub: captions of held-out clips)",
    )
    shared.add_settings(programs)


def run(arguments: argparse.Namespace) -> None:
    form = choose(formats.FORMATS, arguments.format, "format of `stunet export`")
    options = {name: v for name in FLAGS if (v := getattr(arguments, name)) is not None}
    for name in options:
        if name not in form.options:
            others = [other for other, f in formats.FORMATS.items() if name in f.options]
            raise UserError(
                f"{FLAGS[name]} means nothing to --format {arguments.format}; leave it out, or "
                f"choose --format {' or '.join(others)}"
            )
    set_up_jax()
    step, files, uploaded = formats.export(
        form,
        arguments.workdir,
        arguments.out,
        sample=shared.sampling_settings(arguments),
        prompts=arguments.prompt or (),
        dtype=arguments.dtype,
        push=arguments.push,
        public=bool(arguments.public),
    )
    print(f"the averaged weights after {step} updates")
    for file in files:
        print(f"{file.stat().st_size / 2**20:9.2f} MiB  {file}")
    if uploaded:
        print(uploaded)


COMMAND = Command(
    "write a trained run for use elsewhere",
    add_arguments,
    run,
    (
        "stunet export --workdir runs/quickstart --out exported --format stablehlo "
        '--prompt "a 9 moving left"',
        "stunet export --workdir runs/quickstart --out weights --format safetensors "
        "--dtype bfloat16",
    ),
)
