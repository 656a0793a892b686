"""`stunet prepare`: cuts a folder of videos into records of clips."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "input",
        type=shared.path,
        metavar="VIDEOS",
        help="folder of videos; captions are read from captions.csv (with the header file,caption) "
        "or captions.jsonl in it, or from a .txt file beside each video",
    )
    parser.required.add_argument(
        "output", type=shared.path, metavar="RECORDS", help="directory to create"
    )
    parser.options.add_argument(
        "--frames",
        type=shared.positive,
        default=16,
        metavar="N",
        help="frames in each clip (default %(default)s)",
    )
    parser.options.add_argument(
        "--fps",
        type=shared.number,
        default=8.0,
        metavar="FPS",
        help="frames per second of the clips (default %(default)g)",
    )
    parser.options.add_argument(
        "--height",
        type=shared.positive,
        default=32,
        metavar="PIXELS",
        help="height of the clips (default %(default)s)",
    )
    parser.options.add_argument(
        "--width",
        type=shared.positive,
        default=32,
        metavar="PIXELS",
        help="width of the clips (default %(default)s)",
    )
    parser.options.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="1 for grey, 3 for RGB (default %(default)s)",
    )
    parser.options.add_argument(
        "--val-fraction",
        type=shared.number,
        default=0.1,
        metavar="SHARE",
        help="share of each video's clips held out for validation, at least 0 and below 1 "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--text-encoder",
        type=shared.encoder,
        default="bytes",
        metavar="NAME",
        help="text encoder of the captions: bytes, minilm, or t5:DIR, where DIR holds a T5-v1.1 "
        "checkpoint (default %(default)s)",
    )
    parser.options.add_argument(
        "--text-max-length",
        type=shared.positive,
        default=64,
        metavar="N",
        help="longest caption, in tokens; the rest is cut off (default %(default)s)",
    )
    parser.options.add_argument(
        "--text-dim",
        type=int,
        metavar="N",
        help="width of a token's state (default 64 for bytes, otherwise the encoder's width)",
    )


def run(arguments: argparse.Namespace) -> None:
    from stunet.nn.text import text_encoder
    from stunet.prepare.run import prepare

    if arguments.text_encoder != "bytes":
        set_up_jax()
    encoder = text_encoder(arguments.text_encoder, arguments.text_max_length, arguments.text_dim)
    print(
        prepare(
            arguments.input,
            arguments.output,
            frames=arguments.frames,
            fps=arguments.fps,
            height=arguments.height,
            width=arguments.width,
            channels=arguments.channels,
            encode_text=encoder,
            text_encoder=arguments.text_encoder,
            text_fingerprint=encoder.fingerprint,
            val_fraction=arguments.val_fraction,
        )
    )


COMMAND = Command(
    "cut a folder of videos into records of clips",
    add_arguments,
    run,
    (
        "stunet prepare videos runs/clips --frames 16 --fps 8 --height 64 --width 64",
        "stunet prepare videos runs/grey --channels 1 --val-fraction 0.2 --text-encoder minilm",
    ),
)
