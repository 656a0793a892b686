"""`stunet inflate`: builds a Space-Time U-Net around a frozen text-to-image U-Net."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "--t2i",
        required=True,
        type=shared.path,
        metavar="DIR",
        help="folder of a diffusers pipeline of Stable Diffusion 1, 2 or XL, or of the U-Net of "
        "one or of DeepFloyd IF: config.json and safetensors",
    )
    parser.required.add_argument(
        "--out",
        required=True,
        type=shared.path,
        metavar="DIR",
        help="working directory to create",
    )
    parser.required.add_argument(
        "--frames", required=True, type=shared.positive, metavar="N", help="frames in each clip"
    )
    parser.options.add_argument(
        "--temporal-factors",
        type=_factors,
        metavar="N,...",
        help="factor by which each level shrinks time, the finest level first, such as 1,2,2,2 "
        "(default: 1 for the finest level, 2 for each other level)",
    )
    parser.options.add_argument(
        "--lora",
        type=shared.path,
        metavar="FILE",
        help="LoRA file for the U-Net and its text encoder (.safetensors, with names as diffusers "
        "or kohya writes them) to merge into their weights; a text encoder that it changes is "
        "written to OUT/text_encoder (default: none)",
    )
    parser.options.add_argument(
        "--lora-scale",
        type=shared.number,
        metavar="A",
        help="factor of the change that --lora makes (default: 1)",
    )
    parser.add_keys("--config.data.path=runs/clips")


def run(arguments: argparse.Namespace) -> None:
    set_up_jax()
    from stunet.weights.inflate import inflate

    if arguments.lora_scale is not None and not arguments.lora:
        raise UserError("--lora-scale is the factor of a LoRA's change; give --lora too")
    print(
        inflate(
            arguments.t2i,
            arguments.out,
            arguments.frames,
            arguments.temporal_factors,
            arguments.overrides,
            arguments.lora,
            1.0 if arguments.lora_scale is None else arguments.lora_scale,
        )
    )


def _factors(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(factor) for factor in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers, as 1,2,2,2") from None


COMMAND = Command(
    "make a Space-Time U-Net from a text-to-image U-Net",
    add_arguments,
    run,
    (
        "stunet inflate --t2i stable-diffusion-v1-5 --out runs/inflated --frames 80 "
        "--lora style.safetensors --lora-scale 0.8",
        "stunet inflate --t2i deepfloyd-if/unet --out runs/inflated --frames 16 "
        "--temporal-factors 1,2,2,2 --config.data.path=runs/clips",
    ),
    opens=("out",),
)
