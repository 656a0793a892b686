"""`stunet sample TASK`: samples clips from a trained run. `TASKS` lists the tasks by name."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from stunet.commands import arguments as shared
from stunet.commands.parsing import Command, Group, Parser
from stunet.commands.setup import set_up_jax
from stunet.generate.request import Request
from stunet.progress import OnStep, sampling_bar

if TYPE_CHECKING:
    from stunet.generate.arrays import Shown
    from stunet.generate.request import Sampled
    from stunet.generate.text import Loader


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of `stunet sample`.

    Attributes:
        summary: one line for the list of tasks.
        add_arguments: adds the arguments that only this task has.
        sample: makes the clips from the request and the parsed arguments.
        examples: command lines that work.
        needs_prompt: True if the task cannot do without a prompt.
        trained: what kind of run the task needs, with an example, for the help text.
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    sample: Callable[[Request, argparse.Namespace], "Sampled"]
    examples: tuple[str, ...]
    needs_prompt: bool = False
    trained: str = "training run, such as runs/quickstart"


def add_arguments(task: Task, parser: Parser) -> None:
    """Adds the arguments that all tasks share, and those that only `task` has."""
    shared.add_run(parser, task.trained, or_several=True)
    (parser.required if task.needs_prompt else parser.options).add_argument(
        "--prompt",
        required=task.needs_prompt,
        action="append",
        metavar="WORDS",
        help="what the clip shows; give --prompt again for more clips"
        + ("" if task.needs_prompt else " (default: no prompt)"),
    )
    task.add_arguments(parser)
    parser.options.add_argument(
        "--num",
        type=shared.positive,
        default=1,
        metavar="N",
        help="clips for each prompt (default %(default)s)",
    )
    shared.add_sampling(parser)
    parser.options.add_argument(
        "--out",
        type=shared.path,
        metavar="DIR",
        help="directory for the clips (default: samples/ in the run's directory, or beside the "
        "weights file)",
    )
    parser.options.add_argument(
        "--name",
        type=_name,
        metavar="NAME",
        help="name of the files, without suffix (default: made from the prompt, the seed and the "
        "task)",
    )
    parser.options.add_argument(
        "--arrays",
        action="store_true",
        help="also write the clips as NumPy arrays (.npz), which `stunet gallery` shows",
    )


def _name(text: str) -> str:
    is_name = text and pathlib.PurePath(text).name == text and not text.startswith(".")
    if not is_name or len(text.encode()) > 200:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a file; give a short name without directories"
        )
    return text


def run(name: str, arguments: argparse.Namespace) -> None:
    """Samples, writes the clips, and prints where they are."""
    set_up_jax()
    from stunet.generate import text

    _, written = make(name, arguments, text.load, sampling_bar())
    for what, file in written.items():
        print(f"{what:9}  {file}")


def make(
    name: str, arguments: argparse.Namespace, load: "Loader", on_step: OnStep
) -> tuple["Shown", dict[str, pathlib.Path]]:
    """Samples clips as the command line says, and writes them.

    Args:
        name: name of the task.
        arguments: the parsed command line of the task.
        load: see `Request`.
        on_step: see `Request`.

    Returns:
        The clips, to show them, and the paths of the files by what they are.
    """
    from stunet.generate import networks, output

    workdir = networks.find(arguments.workdir, name)
    out = arguments.out or networks.samples(arguments.workdir, workdir)
    output.check_out(out)
    request = Request(
        workdir=workdir,
        prompts=[prompt for prompt in arguments.prompt or [""] for _ in range(arguments.num)],
        seed=arguments.seed,
        sample=shared.sampling_settings(arguments),
        load=load,
        on_step=on_step,
        command=arguments.command_line,
        name=arguments.name or "",
    )
    sampled = TASKS[name].sample(request, arguments)
    written = output.write(out, name, request, sampled, arguments.arrays)
    return output.shown(name, request, sampled), written


def _text(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.text_to_video(request, arguments.tsr, arguments.augmentation)


def _add_image(parser: Parser) -> None:
    parser.required.add_argument(
        "--image",
        required=True,
        type=shared.path,
        metavar="FILE",
        help="picture of the run's height and width, such as first.png",
    )


def _image(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.image_to_video(request, arguments.image)


_BOX = "TOP,LEFT,HEIGHT,WIDTH"


def _add_video(parser: Parser) -> None:
    parser.required.add_argument(
        "--video",
        required=True,
        type=shared.path,
        metavar="FILE",
        help="video file; only its first frames are used, as many as the run's clips have",
    )


def _add_inpaint(parser: Parser) -> None:
    _add_video(parser)
    hole = parser.required.add_mutually_exclusive_group(required=True)
    hole.add_argument(
        "--mask",
        type=shared.path,
        metavar="FILE",
        help="video of the same size and length as --video, white where the video is to be "
        "painted; or a picture of the run's height and width, for all frames; or give --box",
    )
    hole.add_argument(
        "--box",
        metavar=_BOX,
        help="rectangle to paint, in pixels of the run's clips, such as 2,4,8,8",
    )


def _inpaint(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.inpaint(request, arguments.video, arguments.mask, arguments.box)


def _add_cinemagraph(parser: Parser) -> None:
    _add_image(parser)
    region = parser.required.add_mutually_exclusive_group(required=True)
    region.add_argument(
        "--mask",
        type=shared.path,
        metavar="FILE",
        help="picture of the same size as --image, white where it moves; or give --box",
    )
    region.add_argument(
        "--box",
        metavar=_BOX,
        help="rectangle inside which the picture moves, in pixels of the run's clips, such as "
        "2,4,8,8",
    )


def _cinemagraph(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.cinemagraph(request, arguments.image, arguments.mask, arguments.box)


def _add_edit(parser: Parser) -> None:
    _add_video(parser)
    parser.options.add_argument(
        "--strength",
        type=shared.number,
        default=0.6,
        metavar="S",
        help="how much of the video is replaced, from 0 (nothing) to 1 (everything) "
        "(default %(default)s)",
    )


def _edit(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.video_to_video(request, arguments.video, arguments.strength)


def _add_upscale(parser: Parser) -> None:
    source = parser.required.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--video",
        type=shared.path,
        metavar="FILE",
        help="video to enlarge, of any length; its size is the run's low resolution, or a whole "
        "multiple of that",
    )
    source.add_argument(
        "--base",
        type=shared.path,
        metavar="DIR",
        help="working directory of a base run; it first makes low-resolution clips from the "
        "prompts, which are then enlarged",
    )
    parser.options.add_argument(
        "--overlap",
        type=int,
        default=2,
        metavar="N",
        help="the clip is enlarged in segments; number of frames that neighbouring segments share "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--weights",
        default="uniform",
        metavar="NAME",
        help="how two segments are averaged in the frames that they share: uniform (equal weights) "
        "or ramp (the weight shifts linearly from the earlier segment to the later one) "
        "(default %(default)s)",
    )
    parser.options.add_argument(
        "--augmentation",
        type=shared.number,
        metavar="LEVEL",
        help="noise level of the low-resolution clip, 0 to 1 (default: 0 with --video; with "
        "--base, 0.27 or the highest trained level, whichever is lower)",
    )
    parser.options.add_argument(
        "--batch-size",
        type=shared.positive,
        metavar="N",
        help="segments sampled at once (default: one for each device)",
    )


def _upscale(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    return tasks.enlarge(
        request,
        arguments.video,
        arguments.base,
        overlap=arguments.overlap,
        weights=arguments.weights,
        augmentation=arguments.augmentation,
        batch_size=arguments.batch_size,
    )


def _add_style(parser: Parser) -> None:
    style = parser.required.add_mutually_exclusive_group(required=True)
    style.add_argument(
        "--style-workdir",
        type=shared.path,
        metavar="DIR",
        help="working directory of a run whose spatial (text-to-image) weights were trained on "
        "the style; or give --style-lora",
    )
    style.add_argument(
        "--style-lora",
        type=shared.path,
        metavar="FILE",
        help="LoRA file of the style (.safetensors, with names as diffusers or kohya writes them), "
        "for the U-Net that the run was inflated from",
    )
    parser.required.add_argument(
        "--alpha",
        required=True,
        action="append",
        type=shared.number,
        metavar="SHARE",
        help="share of the style in the spatial weights, from 0 (none) to 1, or any factor "
        "of --style-lora; give --alpha again to compare several",
    )


def _style(request: Request, arguments: argparse.Namespace) -> "Sampled":
    from stunet.generate import tasks

    if arguments.style_lora:
        return tasks.stylise_with_lora(request, arguments.style_lora, arguments.alpha)
    return tasks.stylise(request, arguments.style_workdir, arguments.alpha)


TASKS = {
    "text": Task(
        "make clips from prompts",
        shared.add_cascade,
        _text,
        (
            'stunet sample text --workdir runs/quickstart --prompt "a 9 moving left"',
            'stunet sample text --workdir runs/quickstart --prompt "a 5 moving up" --num 4 '
            "--guidance 3 --out clips",
        ),
        needs_prompt=True,
    ),
    "image": Task(
        "make clips that begin with a picture",
        _add_image,
        _image,
        (
            "stunet sample image --workdir runs/masked --image first.png",
            'stunet sample image --workdir runs/masked --image first.png --prompt "a 5 moving up" '
            "--num 4",
        ),
        trained="run trained with masks, such as runs/masked",
    ),
    "inpaint": Task(
        "repaint a part of a video",
        _add_inpaint,
        _inpaint,
        (
            "stunet sample inpaint --workdir runs/masked --video clip.mp4 --box 2,4,8,8",
            "stunet sample inpaint --workdir runs/masked --video clip.mp4 --mask mask.mp4 "
            '--prompt "a 3"',
        ),
        trained="run trained with masks, such as runs/masked",
    ),
    "cinemagraph": Task(
        "make a region of a picture move",
        _add_cinemagraph,
        _cinemagraph,
        (
            "stunet sample cinemagraph --workdir runs/masked --image first.png --box 2,4,8,8",
            "stunet sample cinemagraph --workdir runs/masked --image first.png --mask water.png "
            "--seed 1",
        ),
        trained="run trained with masks, such as runs/masked",
    ),
    "video": Task(
        "change a video to follow another prompt (SDEdit)",
        _add_edit,
        _edit,
        (
            'stunet sample video --workdir runs/quickstart --video clip.mp4 --prompt "a 3"',
            'stunet sample video --workdir runs/quickstart --video clip.mp4 --prompt "a 3" '
            "--strength 0.8",
        ),
    ),
    "upscale": Task(
        "enlarge clips of any length",
        _add_upscale,
        _upscale,
        (
            "stunet sample upscale --workdir runs/ssr --video clip.mp4",
            'stunet sample upscale --workdir runs/ssr --base runs/base --prompt "a 9 moving left"',
        ),
        trained="super-resolution run, such as runs/ssr",
    ),
    "style": Task(
        "make clips from prompts in a style",
        _add_style,
        _style,
        (
            "stunet sample style --workdir runs/base --style-workdir runs/style "
            '--prompt "a 3 moving up" --alpha 0 --alpha 0.5 --alpha 1',
            "stunet sample style --workdir runs/inflated --style-lora style.safetensors "
            '--prompt "a dog runs" --alpha 0.8',
        ),
        needs_prompt=True,
        trained="training run, such as runs/base",
    ),
}

COMMAND = Group(
    "sample clips from a trained run",
    "task",
    {
        name: Command(
            task.summary,
            functools.partial(add_arguments, task),
            functools.partial(run, name),
            task.examples,
        )
        for name, task in TASKS.items()
    },
    examples=(TASKS["text"].examples[0], TASKS["upscale"].examples[0]),
)
