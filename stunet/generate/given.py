"""The tasks that are given a picture or a video: a table of what each takes of a user."""

import argparse
import importlib
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from stunet.generate.task import Request, Sampled, Task

if TYPE_CHECKING:
    from stunet import configs

_BOX = "TOP,LEFT,HEIGHT,WIDTH"


class Input(NamedTuple):
    """Something that a user gives.

    Attributes:
        flags: of the command line that say what; noted in the record.
        add: adds them to a task's parser.
        read: (the arguments, of the run's clips) -> what the task's function takes.
    """

    flags: tuple[str, ...]
    add: Callable[[argparse.ArgumentParser], None]
    read: Callable[[argparse.Namespace, "configs.Data"], Any]


def _read_image(own: argparse.Namespace, data: "configs.Data") -> Any:
    from stunet.generate import inputs

    return inputs.read_picture(own.image, data)[None]


def _read_video(own: argparse.Namespace, data: "configs.Data") -> Any:
    from stunet.generate import inputs

    return inputs.read_clip(own.video, data)[None]


def _read_box(own: argparse.Namespace, data: "configs.Data") -> Any:
    from stunet.generate import inputs

    return inputs.read_box(own.box, data)


def _read_hole(own: argparse.Namespace, data: "configs.Data") -> Any:
    from stunet.generate import inputs

    return _read_box(own, data) if own.box else inputs.read_mask(own.mask, own.video, data)


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, type=pathlib.Path, help="picture file")


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--video", required=True, type=pathlib.Path, help="video file; its beginning is taken"
    )


def _add_box(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--box", required=True, metavar=_BOX, help="what is to move, in pixels")


def _add_hole(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--mask", type=pathlib.Path, help="video of the same size and length, white where to paint"
    )
    where.add_argument("--box", metavar=_BOX, help="where to paint, in the clip's pixels")


def _add_strength(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strength", type=float, default=0.6, help="0: the video itself, to 1: none of it"
    )


_IMAGE = Input(("image",), _add_image, _read_image)
_VIDEO = Input(("video",), _add_video, _read_video)
_REGION = Input(("box",), _add_box, _read_box)
_HOLE = Input(("mask", "box"), _add_hole, _read_hole)
_STRENGTH = Input(("strength",), _add_strength, lambda own, data: own.strength)


def _task(name: str, summary: str, load: str, make: str, *inputs: Input) -> Task:
    """A task whose clips come from `make(run, prompts, *inputs, seed=, on_step=)`.

    Args:
        name: of the task, which its files' names have after the prompt, with that of the first
            input's file.
        summary: for the help.
        load, make: functions of modules of `stunet.generate`, as MODULE.FUNCTION.
        inputs: that it takes.
    """

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        for one in inputs:
            one.add(parser)

    def sample(request: Request) -> Sampled:
        own, run = request.own, _function(load)(request.workdir, **request.sample)
        read = [one.read(own, run.config.data) for one in inputs]
        clips = _function(make)(run, request.prompts, *read, **request.options)
        settings = {flag: getattr(own, flag) for one in inputs for flag in one.flags}
        labels = [name, settings[inputs[0].flags[0]].stem]
        if _STRENGTH in inputs:
            labels.append(f"strength{own.strength:g}")
        return Sampled(clips, run.config, run.checkpoint, settings, tuple(labels))

    return Task(summary, add_arguments, sample)


def _function(path: str) -> Callable[..., Any]:
    """Imported now, and not with this module."""
    module, name = path.split(".")
    return getattr(importlib.import_module(f"stunet.generate.{module}"), name)


_LOAD_MASKED, _LOAD = "masked.load_masked", "text.load_unconditioned"

TASKS = {
    name: _task(name, *rest)
    for name, *rest in (
        ("image", "clips that begin with a picture", _LOAD_MASKED, "masked.image_to_video", _IMAGE),
        (
            "inpaint",
            "a video, of which a part is painted anew",
            _LOAD_MASKED,
            "masked.inpaint",
            _VIDEO,
            _HOLE,
        ),
        (
            "cinemagraph",
            "a picture, of which a region moves",
            _LOAD_MASKED,
            "masked.cinemagraph",
            _IMAGE,
            _REGION,
        ),
        (
            "video",
            "a video made anew after another prompt (SDEdit)",
            _LOAD,
            "video.edit",
            _VIDEO,
            _STRENGTH,
        ),
    )
}
