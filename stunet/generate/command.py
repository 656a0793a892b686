"""`stunet sample TASK`: parses what all tasks are asked, and writes what a task has made."""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import unicodedata
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

    Writes the clips as a GIF, an MP4 and X-T slices, and NAME.json of all that they depend on. The
    same command writes them anew; what another has made is not overwritten. Returns what to print:
    where these lie.

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
    content = _settings(arguments.task, request, sampled)
    rate = configs.frame_rate(sampled.config.data)
    captions = sampled.captions or prompts
    with refusal_explained(out, "choose an --out in which you may create files"):
        name = _vacant(out, _cut(name, 200), content)
        settings = out / f"{name}.json"
        # First: if this is cut short, the same command knows the clips as its own.
        with atomic(settings) as partial:
            partial.write_text(content)
        written = text.write(out, name, sampled.clips, captions, rate, sampled.columns)
    return _table(written, settings)


def _settings(task: str, request: Request, sampled: Sampled) -> str:
    content = {
        "task": task,
        "workdir": request.workdir,
        "checkpoint": sampled.checkpoint,
        "prompts": list(request.prompts),
        "seed": request.seed,
        "sample": dataclasses.asdict(sampled.config.sample),
    }
    return json.dumps(content | sampled.settings, indent=1, default=str) + "\n"


def _vacant(out: pathlib.Path, name: str, settings: str) -> str:
    """`name`, or that with a hash of the settings where its samples depend on something else."""
    from stunet.generate.text import Written

    noted = out / f"{name}.json"
    if noted.is_file():
        vacant = noted.read_bytes() == settings.encode()
    else:
        # An evaluation's clips have no settings beside them.
        vacant = not any(file.exists() for file in vars(Written.of(out, name)).values())
    return name if vacant else f"{name}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _table(written: "Written", settings: pathlib.Path) -> str:
    places = {"GIF": written.gif, "MP4": written.mp4, "X-T slice": written.xt, "settings": settings}
    return "\n".join(f"{what:9}  {place}" for what, place in places.items())


def _slug(text: str) -> str:
    """Its letters, with their marks, and numbers, in whatever script."""
    kept = (
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in unicodedata.normalize("NFC", text.lower())
    )
    return _cut("_".join("".join(kept).split()), 60)


def _cut(text: str, size: int) -> str:
    """As many whole characters as fit into so many bytes: a file's name has no more than 255."""
    return text.encode()[:size].decode(errors="ignore")
