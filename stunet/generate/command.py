"""`stunet sample TASK`: parses what all tasks are asked, and writes what a task has made."""

import argparse
import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stunet.errors import UserError, choose
from stunet.files import atomic, refusal_explained
from stunet.generate.task import (
    Request,
    Sampled,
    add_sampling,
    at_least_one,
    sampling_bar,
    sampling_settings,
)
from stunet.generate.tasks import TASKS

if TYPE_CHECKING:
    from stunet.generate.text import Written


def check_named(arguments: Sequence[str]) -> None:
    """Checks that a task comes first, which argparse would look for among the options' values.

    Args:
        arguments: that follow `stunet sample`.

    Raises:
        UserError: no task is named, or there is none of that name.
    """
    first = next(iter(arguments), "-")
    if first in ("-h", "--help"):
        return
    if first.startswith("-"):
        raise UserError(
            "name what to make before the options, as in `stunet sample text --workdir DIR "
            f"--prompt WORDS`: one of {', '.join(TASKS)}"
        )
    choose(TASKS, first, "task of `stunet sample`")


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Gives the parser of `stunet sample` one of its own for each task."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, task in TASKS.items():
        sub = tasks.add_parser(
            name,
            help=task.summary,
            description=task.summary,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.add_argument("--workdir", required=True, type=pathlib.Path, help="of the training run")
        sub.add_argument(
            "--prompt",
            required=task.prompted,
            action="append",
            help="what to show; may be given repeatedly" + ("" if task.prompted else " (nothing)"),
        )
        sub.add_argument("--num", type=at_least_one, default=1, help="clips for each prompt")
        task.add_arguments(sub)
        add_sampling(sub)
        sub.add_argument("--out", type=pathlib.Path, help="directory (WORKDIR/samples)")


def run(arguments: argparse.Namespace) -> str:
    """Does the task that the command line asks for.

    Writes the clips as a GIF, an MP4 and X-T slices, and NAME.json of all that they depend on.
    Returns what to print: where these lie.

    Raises:
        UserError: the task cannot be done; nothing is written then.
    """
    from stunet import configs
    from stunet.generate import text

    out = arguments.out or arguments.workdir / "samples"
    if out.exists() and not out.is_dir():  # Before sampling, which takes long.
        raise UserError(f"--out: {out} is a file; name a directory, or one to be made")
    prompts = [prompt for prompt in arguments.prompt or [""] for _ in range(arguments.num)]
    request = Request(
        workdir=arguments.workdir,
        prompts=prompts,
        seed=arguments.seed,
        sample=sampling_settings(arguments),
        on_step=sampling_bar(),
        own=arguments,
    )
    sampled = TASKS[arguments.task].sample(request)
    name = "_".join(
        [_slug(prompts[0]) or "no_prompt", f"seed{request.seed}", *map(_slug, sampled.labels)]
    )
    rate = configs.frame_rate(sampled.config.data)
    captions = sampled.captions or prompts
    settings = out / f"{name}.json"
    with refusal_explained(out, "choose an --out in which you may create files"):
        written = text.write(out, name, sampled.clips, captions, rate, sampled.columns)
        _write_settings(settings, arguments.task, request, sampled)
    return _table(written, settings)


def _write_settings(file: pathlib.Path, task: str, request: Request, sampled: Sampled) -> None:
    content = {
        "task": task,
        "workdir": request.workdir,
        "checkpoint": sampled.checkpoint,
        "prompts": list(request.prompts),
        "seed": request.seed,
        "sample": dataclasses.asdict(sampled.config.sample),
    }
    with atomic(file) as partial:
        partial.write_text(json.dumps(content | sampled.settings, indent=1, default=str) + "\n")


def _table(written: "Written", settings: pathlib.Path) -> str:
    places = {"GIF": written.gif, "MP4": written.mp4, "X-T slice": written.xt, "settings": settings}
    return "\n".join(f"{what:9}  {place}" for what, place in places.items())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
