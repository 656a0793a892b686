"""Argparse types of arguments, and arguments that several commands share."""

import argparse
import math
import pathlib
from collections.abc import Callable

from stunet import paths
from stunet.commands.parsing import Parser
from stunet.errors import UserError
from stunet.generate.request import check_seed
from stunet.stores import addresses


def positive(text: str) -> int:
    """Returns the whole number in `text`, which must be at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number(text: str) -> float:
    """Returns the number in `text`.

    Raises:
        argparse.ArgumentTypeError: the text is no number, or the number is infinite or NaN.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def seed(text: str) -> int:
    """Returns the seed in `text`."""
    value = int(text)
    check_seed(value)
    return value


def path(text: str) -> pathlib.Path:
    """Returns the path in `text`, or the path of its copy if `text` is an address in a bucket.

    Use this function as the argparse type of an argument that takes a path. What has an address is
    downloaded before the command and uploaded after it (`stunet.commands.parsing.run`). Arguments
    for a text encoder use `encoder` instead, and arguments for a Python file use `file_with`.

    Raises:
        argparse.ArgumentTypeError: the text is empty, or an address of another kind of store.
    """
    return _parsed(text, addresses.local)


def _parsed(text: str, parse: Callable[[str], pathlib.Path]) -> pathlib.Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return parse(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def place(text: str) -> str:
    """Returns `text`, a path or an address that `path` takes, as the user wrote it."""
    path(text)
    return text


def encoder(text: str) -> str:
    """Returns the name of the text encoder in `text`, which may hold a path, as in "t5:DIR"."""
    from stunet.configs import text_encoders

    path(text_encoders.path(text))
    return text


def size(text: str) -> tuple[int, int]:
    """Returns the rows and columns in `text`, such as 256x448."""
    rows, _, columns = text.partition("x")
    try:
        return positive(rows), positive(columns)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; write rows x columns, such as 256x448"
        ) from None


def file_with(function: str) -> Callable[[str], str]:
    """Returns an argparse type for the name of a file that defines the function `function`.

    If the user gives "help" as the name, parsing prints a list of such files that come with stunet,
    and ends the program.
    """

    def name(text: str) -> str:
        if text == "help":
            from stunet.configs import experiments

            print(experiments.listing(function))
            raise SystemExit(0)
        # The config of a run may be in a bucket. Python files that are run are not fetched.
        is_run = function == "get_config" and text.endswith(".json")
        _parsed(text, addresses.local if is_run else paths.local)
        return text

    return name


def add_config(parser: Parser, example: str) -> None:
    """Adds --config, which takes an experiment. Its help mentions the experiment `example`."""
    parser.required.add_argument(
        "--config",
        required=True,
        type=file_with("get_config"),
        metavar="NAME",
        help=f"experiment that comes with stunet (--config help lists them), such as {example}; or "
        "a Python file with get_config(), or the config.json of a run",
    )


_OR_SEVERAL = (
    "; or a weights file; or a directory of several networks, of which the task takes the one that "
    "it needs"
)


def add_run(
    parser: Parser, run: str = "training run, such as runs/quickstart", or_several: bool = False
) -> None:
    """Adds --workdir, the directory of a trained run.

    Args:
        parser: parser of the command.
        run: description of the run, for the help text.
        or_several: the command also takes what `stunet.generate.networks.find` takes.
    """
    parser.required.add_argument(
        "--workdir",
        required=True,
        type=path,
        metavar="DIR",
        help=f"working directory of a {run}" + (_OR_SEVERAL if or_several else ""),
    )


def add_sampling(parser: Parser) -> None:
    """Adds the arguments of `add_settings`, and those that choose the seed and what is read."""
    parser.options.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of the noise (default %(default)s)"
    )
    add_settings(parser.options)
    add_checkpoint(parser.options)
    parser.options.add_argument(
        "--autoguidance-from",
        type=place,
        metavar="PLACE",
        help="weaker version of the network, for --autoguidance: the updates of an earlier "
        "checkpoint of the run, such as 1000, another run, or a weights file (default: the run's "
        "sample.autoguidance_from)",
    )
    add_autoencoder(parser.options)


def add_autoencoder(group: argparse._ActionsContainer) -> None:
    """Adds the argument --autoencoder."""
    group.add_argument(
        "--autoencoder",
        type=place,
        metavar="DIR",
        help="directory of the run's autoencoder, if it is not at the run's autoencoder.path",
    )


def add_settings(group: argparse._ActionsContainer) -> None:
    """Adds the arguments --steps, --sampler, --guidance and --autoguidance."""
    group.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="steps from noise to clip (default: the run's sample.steps)",
    )
    group.add_argument(
        "--sampler",
        metavar="NAME",
        help="ddim, ancestral, dpmpp_2m, heun, unipc, or PACKAGE.MODULE:NAME for your own "
        "(default: the run's sample.sampler)",
    )
    group.add_argument(
        "--guidance",
        dest="guidance_scale",
        type=number,
        metavar="SCALE",
        help="classifier-free guidance scale; 0 ignores the prompt, and 1 is no guidance "
        "(default: the run's sample.guidance_scale)",
    )
    group.add_argument(
        "--autoguidance",
        dest="autoguidance_scale",
        type=number,
        metavar="SCALE",
        help="scale of guidance by a weaker version of the network; 1 is none (default: the run's "
        "sample.autoguidance_scale)",
    )


def add_checkpoint(group: argparse._ActionsContainer) -> None:
    """Adds the argument --checkpoint."""
    group.add_argument(
        "--checkpoint",
        type=_checkpoint,
        metavar="STEP",
        help="checkpoint to read: newest, best (by the run's checkpoint.keep_best) or a number of "
        "updates, such as 2000 (default: the run's sample.checkpoint, newest)",
    )


def _checkpoint(text: str) -> str:
    if text not in ("newest", "best") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not newest, best or a number of updates")
    return text


def sampling_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Returns the settings that the command line sets, as `stunet.train.parts.read_parts` takes."""
    names = ("sampler", "steps", "guidance_scale", "checkpoint", "autoencoder")
    names += ("autoguidance_scale", "autoguidance_from")
    return {name: v for name in names if (v := getattr(arguments, name, None)) is not None}


def add_cascade(parser: Parser) -> None:
    """Adds the arguments for the second network of a keyframe cascade."""
    parser.options.add_argument(
        "--tsr",
        type=path,
        metavar="DIR",
        help="working directory of a temporal super-resolution run: it fills in the frames "
        "between the keyframes that --workdir makes",
    )
    parser.options.add_argument(
        "--augmentation",
        type=number,
        metavar="LEVEL",
        help="noise level of the keyframes when the super-resolution network sees them, 0 to 1 "
        "(default for keyframes that --workdir makes: 0.27, or the highest level trained if that "
        "is lower)",
    )
