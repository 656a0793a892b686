"""`stunet demo`: serves a page on which the tasks of `stunet sample` can be tried in a browser."""

import argparse
import importlib.util
import os
import pathlib
import tempfile
import time
from collections.abc import Sequence

from stunet import signals
from stunet.commands import arguments as shared
from stunet.commands import sample
from stunet.commands.parsing import Command, Parser
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError
from stunet.progress import OnStep

# Option -> its task of `stunet sample`, and the field of the form that takes its place.
_OPTIONS = {
    "tsr": ("text", ""),
    "base": ("upscale", "video"),
    "style_workdir": ("style", ""),
    "style_lora": ("style", ""),
}


def add_arguments(parser: Parser) -> None:
    shared.add_run(parser, or_several=True)
    parser.options.add_argument(
        "--tsr",
        type=shared.path,
        metavar="DIR",
        help="working directory of a temporal super-resolution run: the task text makes keyframes, "
        "and this run fills in the frames between them",
    )
    parser.options.add_argument(
        "--base",
        type=shared.path,
        metavar="DIR",
        help="working directory of a base run: the task upscale enlarges what it makes from the "
        "prompts if no video is given",
    )
    style = parser.options.add_mutually_exclusive_group()
    style.add_argument(
        "--style-workdir",
        type=shared.path,
        metavar="DIR",
        help="working directory of a run whose spatial weights were trained on a style, for the "
        "task style (default: the page has no such task)",
    )
    style.add_argument(
        "--style-lora",
        type=shared.path,
        metavar="FILE",
        help="LoRA file of the style, for the U-Net that the run was inflated from, for the task "
        "style",
    )
    shared.add_autoencoder(parser.options)
    parser.options.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="network address to serve at; 0.0.0.0 lets everyone on the network use the page "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--port",
        type=_port,
        default=7860,
        metavar="N",
        help="port to serve at (default %(default)s)",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C or SIGTERM. Everything written is then deleted."""
    if not importlib.util.find_spec("gradio"):
        raise UserError("the page needs Gradio: pip install 'stunet[demo]'")
    set_up_jax()
    with tempfile.TemporaryDirectory(prefix="stunet_demo_") as folder:
        # Gradio reads these when it is imported, and keeps uploads and results in this directory.
        os.environ |= {
            "GRADIO_TEMP_DIR": f"{folder}/files",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        from stunet.demo import page

        demo = load(arguments, pathlib.Path(folder) / "samples")
        print(f"tasks      {', '.join(demo.runs)}")
        address = page.serve(page.build(demo), arguments.host, arguments.port)
        print(f"page       {address} (Ctrl-C ends it)", flush=True)
        with signals.handlers_kept():
            stops = signals.note_stops()
            while not stops:
                time.sleep(0.2)


def load(arguments: argparse.Namespace, out: pathlib.Path):
    """Loads the networks of all tasks that the page offers, and returns what the page needs.

    Args:
        arguments: the parsed command line.
        out: directory for the clips.

    Raises:
        UserError: a network cannot be loaded, none does any task, or none does the task of an
            option.
    """
    from stunet.demo.page import Demo, Fixed
    from stunet.generate import networks, text

    keeping = text.keeping_loader()
    found, fixed = networks.find_tasks(arguments.workdir), {}
    for option, (task, unless) in _OPTIONS.items():
        if value := getattr(arguments, option):
            flag = f"--{option.replace('_', '-')}"
            if task not in found:
                raise UserError(
                    f"{flag} is for the task {task}, which {arguments.workdir} cannot do"
                )
            fixed[task] = (Fixed((flag, str(value)), unless),)
    if "style" not in fixed:
        found.pop("style", None)
    settings = shared.sampling_settings(arguments)
    if place := arguments.autoencoder:
        for task in found:
            fixed[task] = (*fixed.get(task, ()), Fixed(("--autoencoder", place)))

    def make(words: Sequence[str], on_step: OnStep):
        return sample.make(words[0], _parsed([*words, "--out", str(out)]), keeping, on_step)

    runs = {task: (network, keeping(network, **settings)) for task, network in found.items()}
    return Demo(arguments.workdir, runs, make, out / "masks", fixed)


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Parses the words after `stunet sample`.

    Raises:
        UserError: an argument is missing or wrong.
    """
    task, *rest = words
    parser = sample.COMMAND.commands[task].parser(f"stunet sample {task}")

    def refuse(message: str) -> None:
        raise UserError(message)

    parser.error = refuse  # The page shows the message; the process goes on.
    parsed = parser.parse(rest)
    parsed.command_line = ""
    return parsed


COMMAND = Command(
    "try a trained run in the browser",
    add_arguments,
    run,
    (
        "stunet demo --workdir runs/quickstart",
        "stunet demo --workdir runs/masked_digits --port 8000",
    ),
)
