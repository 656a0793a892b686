"""`stunet prepare`: stores videos as shots, from which training cuts clips."""

import argparse

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError
from stunet.stores import mirror
from stunet.stores.addresses import shown

# Flag, type, name of the value, default and help text of each option that takes a number. Defaults
# are those of `Spec` and `prepare`, which a test compares, so that the help needs no NumPy.
_NUMBERS = (
    (
        "--side",
        shared.positive,
        "PIXELS",
        256,
        "largest height or width, whichever is smaller, of stored pictures; clips are scaled from "
        "them",
    ),
    (
        "--fps",
        shared.number,
        "FPS",
        24.0,
        "frames per second of the shots; clips have this rate or a lower one, best this number "
        "divided by a whole one",
    ),
    (
        "--min-seconds",
        shared.number,
        "SECONDS",
        1.0,
        "shorter stretches are left out",
    ),
    (
        "--max-seconds",
        shared.number,
        "SECONDS",
        20.0,
        "longer stretches become several shots",
    ),
    (
        "--cut-threshold",
        shared.number,
        "LEVEL",
        6.0,
        "how much larger, of 255, the change of brightness at a cut is than the changes around "
        "it; 0 looks for no cuts",
    ),
    (
        "--val-fraction",
        shared.number,
        "SHARE",
        0.1,
        "share of the time held out for validation, at least 0 and below 1",
    ),
    (
        "--val-seconds",
        shared.number,
        "SECONDS",
        5.0,
        "length of each stretch that is held out, at the end of a shot; no clip that is longer can "
        "be validated. With --pictures, single pictures are held out",
    ),
)

# Options of filters, in the same way; 0 drops no shot.
_FILTERS = (
    (
        "--min-motion",
        shared.number,
        "SPEED",
        "drop shots whose content moves less than this, in heights or widths of the picture, "
        "whichever are smaller, per second; such as 0.02",
    ),
    (
        "--min-brightness",
        shared.number,
        "LEVEL",
        "drop shots whose mean brightness, of 255, is lower; such as 16",
    ),
    (
        "--min-contrast",
        shared.number,
        "LEVEL",
        "drop shots whose brightness has a smaller standard deviation within a picture; such as 8",
    ),
    (
        "--min-size",
        shared.positive,
        "PIXELS",
        "drop shots whose height or width, whichever is smaller, has fewer pixels; at most --side",
    ),
    (
        "--min-difference",
        shared.number,
        "SHARE",
        "drop shots whose perceptual hash differs from that of an earlier shot of another video in "
        "a smaller share of its bits, such as 0.1, which finds copies",
    ),
)


# Options of earlier versions, and the keys of the config that have taken their place.
_MOVED = {
    "--frames": "data.frames",
    "--height": "data.height",
    "--width": "data.width",
    "--channels": "data.channels",
}


class _Moved(argparse.Action):
    """Explains that an option is now a key of the config."""

    def __call__(self, parser, namespace, values, option_string=None):
        key = _MOVED[option_string]
        parser.error(
            f"{option_string} is chosen when training, and needs no new preparing: leave it out, "
            f"and give `stunet train` --config.{key}={values}"
        )


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "input",
        type=shared.path,
        metavar="VIDEOS",
        help="folder of videos with captions in captions.csv (with the header file,caption), in "
        "captions.jsonl, or in a .txt file beside each video; a list of videos (.txt, .csv, .jsonl "
        "or .parquet) with the columns path, caption, start and end; or a WebDataset: a .tar file, "
        "or a folder of them; each may be in a bucket, as gs://BUCKET/videos",
    )
    parser.required.add_argument(
        "output",
        type=shared.path,
        metavar="SHOTS",
        help="directory to create; if it is there, videos that it does not hold yet are added, and "
        "a command that was stopped goes on",
    )
    parser.options.add_argument(
        "--pictures",
        action="store_true",
        help="read pictures (jpg, png, webp) in a folder or tar files, and no videos; each is a "
        "shot of one frame, for data.frames=1",
    )
    for flag, kind, metavar, default, text in _NUMBERS:
        parser.options.add_argument(
            flag,
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default %(default){'s' if isinstance(default, int) else 'g'})",
        )
    parser.options.add_argument(
        "--crop-bars",
        action="store_true",
        help="cut off black bars around the pictures",
    )
    for flag, kind, metavar, text in _FILTERS:
        parser.options.add_argument(flag, type=kind, default=0, metavar=metavar, help=text)
    parser.options.add_argument(
        "--codec",
        default="h264",
        choices=("h264", "jpeg", "raw", "webp"),
        help="how pictures are stored (default %(default)s)",
    )
    parser.options.add_argument(
        "--quality",
        type=int,
        metavar="N",
        help="quality of the codec: h264 51 (worst) to 0, default 18; webp 1 to 100, default 90; "
        "jpeg 1 to 100, default 95",
    )
    parser.options.add_argument(
        "--group",
        type=shared.positive,
        metavar="N",
        help="for h264: pictures from one that is stored by itself to the next; 1 stores each by "
        "itself (default 8)",
    )
    parser.options.add_argument(
        "--workers",
        type=shared.positive,
        metavar="N",
        help="number of processes (default: one for each processor)",
    )
    parser.options.add_argument(
        "--engine",
        default="processes",
        choices=("processes", "ray"),
        help="what does the work: processes of this machine, or a Ray cluster, whose machines all "
        "see the videos and SHOTS at the same paths or addresses (default %(default)s)",
    )
    parser.options.add_argument(
        "--address",
        metavar="ADDRESS",
        help="address of the Ray cluster, such as 10.0.0.1:6379 (default: the one in RAY_ADDRESS; "
        "without it, one is started on this machine for this command)",
    )
    parser.options.add_argument(
        "--verify",
        action="store_true",
        help="compare the files that are there with their digests, and make damaged ones again",
    )
    for flag in _MOVED:
        parser.options.add_argument(flag, action=_Moved, help=argparse.SUPPRESS)
    parser.options.add_argument(
        "--text-encoder",
        type=shared.encoder,
        default="bytes",
        metavar="NAME",
        help="text encoder whose states are stored with the shots, as text.encoder names it, such "
        "as minilm or t5:DIR. The states of bytes are computed when clips are read "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--text-max-length",
        type=shared.positive,
        default=64,
        metavar="N",
        help="longest caption, in tokens; the rest is cut off (default %(default)s)",
    )
    parser.options.add_argument(
        "--latents",
        type=shared.path,
        metavar="DIR",
        help="directory of a diffusers autoencoder, such as vae of Stable Diffusion; its latents "
        "of all pictures are stored with the shots, to train on them (autoencoder.path)",
    )
    parser.options.add_argument(
        "--latents-size",
        type=shared.size,
        metavar="HxW",
        help="rows and columns, in pixels, of the pictures that --latents encodes, cropped at "
        "their centre and scaled, such as 256x448",
    )
    parser.options.add_argument(
        "--latents-low",
        type=shared.positive,
        metavar="N",
        help="also store latents of the same pictures shrunk by N and enlarged again, for a "
        "network that enlarges by N (upscale.factor), such as 4 (default: none)",
    )


def run(arguments: argparse.Namespace) -> None:
    from stunet.data.shots import layout
    from stunet.data.shots.codecs import make_codec
    from stunet.nn import autoencoder
    from stunet.nn.text import text_encoder
    from stunet.prepare.cluster import ray_cluster
    from stunet.prepare.filters import Filters
    from stunet.prepare.kinds import PICTURES, VIDEOS
    from stunet.prepare.latents import Encoding
    from stunet.prepare.run import prepare
    from stunet.report.shots import PAGE_FILE, write_page

    if arguments.engine == "processes" and arguments.address:
        raise UserError("--address names a Ray cluster: give --engine ray too")
    if arguments.engine == "ray" and arguments.workers:
        raise UserError("--workers are processes of this machine: leave it out with --engine ray")
    engine = ray_cluster(arguments.address) if arguments.engine == "ray" else None

    if bool(arguments.latents) != bool(arguments.latents_size):
        raise UserError("--latents and --latents-size belong together: give both, or none")

    codec = make_codec(arguments.codec, arguments.quality, arguments.group)
    encoder = None
    if arguments.text_encoder != "bytes":
        set_up_jax()
        encoder = text_encoder(arguments.text_encoder, arguments.text_max_length)
    if arguments.latents_low and not arguments.latents:
        raise UserError("--latents-low adds to the latents of --latents; give --latents too")
    encodings = []
    if arguments.latents:
        set_up_jax()
        vae, size = autoencoder.read(arguments.latents), arguments.latents_size
        # A factor of 1 stands for the pictures as they are.
        encodings = [Encoding(vae, *size, low) for low in sorted({1, arguments.latents_low or 1})]
    spec = layout.Spec(
        side=arguments.side,
        fps=arguments.fps,
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        cut_threshold=arguments.cut_threshold,
        crop_bars=arguments.crop_bars,
        codec=codec.name,
        quality=codec.quality,
        group=codec.group,
    )
    filters = Filters(
        min_motion=arguments.min_motion,
        min_brightness=arguments.min_brightness,
        min_contrast=arguments.min_contrast,
        min_size=arguments.min_size,
        min_difference=arguments.min_difference,
    )
    summary = prepare(
        arguments.input,
        arguments.output,
        spec,
        kind=PICTURES if arguments.pictures else VIDEOS,
        filters=filters,
        text_encoder=arguments.text_encoder,
        encode_text=encoder,
        encodings=encodings,
        val_fraction=arguments.val_fraction,
        # One picture, and not as many as a video shows in that time.
        val_seconds=(
            1 / arguments.fps if arguments.pictures and arguments.fps else arguments.val_seconds
        ),
        workers=arguments.workers,
        engine=engine,
        verify=arguments.verify,
    )
    file = arguments.output / PAGE_FILE
    print(summary)
    write_page(file, shown(str(arguments.input)), spec, filters, summary)
    mirror.push(arguments.output, only=layout.describes)
    print(f"page       {file}")


COMMAND = Command(
    "store videos as shots, from which training cuts clips",
    add_arguments,
    run,
    (
        "stunet prepare videos runs/shots",
        "stunet prepare list.parquet runs/shots --side 128 --fps 16 --text-encoder minilm",
    ),
    opens=("input", "output"),
)
