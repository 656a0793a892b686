"""The tasks of `stunet sample TASK`: one table, from a name to its arguments and its function.

This module parses and writes; what a task does is a function of a module beside it, imported when
the task runs, so that the command line starts without JAX.
"""

import argparse
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stunet.errors import UserError, choose
from stunet.files import atomic

if TYPE_CHECKING:
    import numpy as np

    from stunet import configs
    from stunet.generate.text import Written

OnStep = Callable[[int, int], None]

_BOX = "TOP,LEFT,HEIGHT,WIDTH"


@dataclasses.dataclass(frozen=True)
class Request:
    """What every task is asked.

    Attributes:
        workdir: of the training run.
        prompts: one for each clip to make; empty where none was given.
        seed: of the noise.
        sample: settings of `configs.Sample` that replace the run's own.
        on_step: to be called with the steps done and their number.
        own: the arguments that only this task has.
    """

    workdir: pathlib.Path
    prompts: Sequence[str]
    seed: int
    sample: Mapping[str, object]
    on_step: OnStep
    own: argparse.Namespace


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What a task made.

    Attributes:
        clips: `[n, t, h, w, c]` in -1..1, one for each prompt, or for each of `captions`.
        config: of the run that they come from, with the settings that they were sampled at.
        checkpoint: updates of the weights.
        settings: of the task alone, for the record: JSON values, and paths.
        labels: what tells the files' names from another task's, or from those of other inputs.
        captions: one for each clip, where prompts are not; empty: the prompts.
    """

    clips: "np.ndarray"
    config: "configs.Config"
    checkpoint: int
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    captions: Sequence[str] = ()


class Task(NamedTuple):
    """A task of `stunet sample`.

    Attributes:
        summary: for the help.
        add_arguments: adds what only this task has to its parser.
        sample: does it.
        prompted: whether it cannot do without a prompt.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    sample: Callable[[Request], Sampled]
    prompted: bool = False


def _text(request: Request) -> Sampled:
    from stunet.generate import cascade, text

    own, options = request.own, _options(request)
    if own.tsr:
        filled = cascade.cascade(
            request.workdir,
            own.tsr,
            request.prompts,
            augmentation=own.augmentation,
            **options,
            **request.sample,
        )
        keyframes, checkpoint = filled.checkpoints
        settings = {"tsr": own.tsr, "tsr_checkpoint": checkpoint}
        settings["augmentation"] = filled.augmentation
        return Sampled(filled.clips, filled.config, keyframes, settings, ("cascade",))
    if own.augmentation is not None:
        raise UserError("--augmentation is of the keyframes of a cascade; give its --tsr too")
    run = text.load_unconditioned(request.workdir, **request.sample)
    clips = text.sample_clips(run, request.prompts, **options)
    return Sampled(clips, run.config, run.checkpoint)


def add_cascade(parser: argparse.ArgumentParser) -> None:
    """The arguments of a keyframe cascade."""
    parser.add_argument(
        "--tsr",
        type=pathlib.Path,
        metavar="WORKDIR",
        help="of temporal super-resolution: --workdir makes the keyframes, this what is between",
    )
    parser.add_argument(
        "--augmentation",
        type=float,
        help="with --tsr: level at which keyframes are corrupted (0.27, or the most trained)",
    )


def _image(request: Request) -> Sampled:
    from stunet.generate import inputs, masked

    own, run = request.own, masked.load_masked(request.workdir, **request.sample)
    picture = inputs.read_picture(own.image, run.config.data)
    clips = masked.image_to_video(run, request.prompts, picture[None], **_options(request))
    settings, labels = {"image": own.image}, ("image", own.image.stem)
    return Sampled(clips, run.config, run.checkpoint, settings, labels)


def _cinemagraph(request: Request) -> Sampled:
    from stunet.generate import inputs, masked

    own, run = request.own, masked.load_masked(request.workdir, **request.sample)
    data = run.config.data
    picture, box = inputs.read_picture(own.image, data), inputs.read_box(own.box, data)
    clips = masked.cinemagraph(run, request.prompts, picture[None], box, **_options(request))
    settings, labels = {"image": own.image, "box": own.box}, ("cinemagraph", own.image.stem)
    return Sampled(clips, run.config, run.checkpoint, settings, labels)


def _inpaint(request: Request) -> Sampled:
    from stunet.generate import inputs, masked

    own, run = request.own, masked.load_masked(request.workdir, **request.sample)
    data = run.config.data
    clip = inputs.read_clip(own.video, data)
    hole = (
        inputs.read_box(own.box, data) if own.box else inputs.read_mask(own.mask, own.video, data)
    )
    clips = masked.inpaint(run, request.prompts, clip[None], hole, **_options(request))
    settings = {"video": own.video, "mask": own.mask, "box": own.box}
    labels = ("inpaint", own.video.stem)
    return Sampled(clips, run.config, run.checkpoint, settings, labels)


def _video(request: Request) -> Sampled:
    from stunet.generate import inputs, text, video

    own, run = request.own, text.load_unconditioned(request.workdir, **request.sample)
    clip = inputs.read_clip(own.video, run.config.data)
    clips = video.edit(run, request.prompts, clip[None], own.strength, **_options(request))
    settings = {"video": own.video, "strength": own.strength}
    labels = ("video", own.video.stem, f"strength{own.strength:g}")
    return Sampled(clips, run.config, run.checkpoint, settings, labels)


def _options(request: Request) -> dict[str, object]:
    """Of whatever samples."""
    return {"seed": request.seed, "on_step": request.on_step}


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, type=pathlib.Path, help="picture file")


def _add_cinemagraph(parser: argparse.ArgumentParser) -> None:
    _add_image(parser)
    parser.add_argument("--box", required=True, metavar=_BOX, help="what is to move, in pixels")


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    _add_video(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--mask", type=pathlib.Path, help="video of the same size and length, white where to paint"
    )
    where.add_argument("--box", metavar=_BOX, help="where to paint, in the clip's pixels")


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--video", required=True, type=pathlib.Path, help="video file; its beginning is taken"
    )


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_video(parser)
    parser.add_argument(
        "--strength", type=float, default=0.6, help="0: the video itself, to 1: none of it"
    )


def _upscale(request: Request) -> Sampled:
    import numpy as np

    from stunet.generate import cascade, text, upscale

    own, prompts, seed = request.own, request.prompts, request.seed
    # Without a caption there is nothing to guide towards, and half of the work to be saved.
    unguided = {} if any(prompts) else {"guidance_scale": 0.0}
    upscaler = upscale.load(request.workdir, **(unguided | request.sample))
    config, settings = upscaler.config, {"video": own.video}
    if own.base:
        upscale.check_base(text.load_config(own.base), config)
        base = text.load_unconditioned(own.base, **request.sample)
        low = text.sample_clips(base, prompts, seed=seed, on_step=sampling_bar())
        seed = cascade.later_seed(seed)
        settings = {"base": own.base, "base_checkpoint": base.checkpoint}
    else:
        low = [upscale.read_low(own.video, config)] * len(prompts)
    augmentation = own.augmentation
    if augmentation is None:
        augmentation = min(upscale.AUGMENTATION, config.upscale.max_augmentation) * bool(own.base)
    settings |= {"overlap": own.overlap, "weights": own.weights, "augmentation": augmentation}
    clips = []
    for number, (clip, prompt) in enumerate(zip(low, prompts, strict=True)):
        upscaled = upscale.upscale(
            upscaler,
            clip,
            prompt,
            overlap=own.overlap,
            weights=own.weights,
            augmentation=augmentation,
            seed=seed,
            number=number,
            batch_size=own.batch_size,
            on_step=lambda done, total, number=number: request.on_step(
                number * total + done, len(prompts) * total
            ),
        )
        clips.append(upscaled.clip)
        settings["segments"] = upscaled.segments.starts
    labels = ("upscaled",) if own.base else (own.video.stem, "upscaled")
    return Sampled(np.stack(clips), config, upscaler.checkpoint, settings, labels)


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--video",
        type=pathlib.Path,
        metavar="FILE",
        help="to enlarge, of any length; of the low resolution or a whole multiple of it",
    )
    source.add_argument(
        "--base",
        type=pathlib.Path,
        metavar="WORKDIR",
        help="of a run that makes low-resolution clips of the prompts, which are then enlarged",
    )
    parser.add_argument(
        "--overlap", type=int, default=2, metavar="FRAMES", help="that segments of the clip share"
    )
    parser.add_argument(
        "--weights",
        default="uniform",
        help="of a segment's frames in the average; ramp: falling over the overlap",
    )
    parser.add_argument(
        "--augmentation",
        type=float,
        help="level at which the low-resolution clip is corrupted (0, or with --base 0.27 or the "
        "most trained)",
    )
    parser.add_argument(
        "--batch-size", type=at_least_one, help="segments at once (one for each device)"
    )


def _style(request: Request) -> Sampled:
    from stunet.generate import style, text

    own, prompts = request.own, request.prompts
    run = text.load_unconditioned(request.workdir, **request.sample)
    other = text.load(own.style_workdir)
    clips = style.stylise(run, other, prompts, own.alpha, **_options(request))
    return Sampled(
        clips,
        run.config,
        run.checkpoint,
        {"style": own.style_workdir, "style_checkpoint": other.checkpoint, "alphas": own.alpha},
        ("style", *(f"{alpha:g}" for alpha in own.alpha)),
        [f"{prompt} (alpha {alpha:g})" for alpha in own.alpha for prompt in prompts],
    )


def _add_style(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--style-workdir",
        required=True,
        type=pathlib.Path,
        metavar="WORKDIR",
        help="of a run whose spatial weights are the style's",
    )
    parser.add_argument(
        "--alpha",
        required=True,
        action="append",
        type=float,
        help="of the style in the spatial weights, 0 (none) to 1; may be given repeatedly",
    )


TASKS = {
    "text": Task("clips from prompts", add_cascade, _text, prompted=True),
    "image": Task("clips that begin with a picture", _add_image, _image),
    "inpaint": Task("a video, of which a part is painted anew", _add_inpaint, _inpaint),
    "cinemagraph": Task("a picture, of which a region moves", _add_cinemagraph, _cinemagraph),
    "video": Task("a video made anew after another prompt (SDEdit)", _add_edit, _video),
    "upscale": Task("enlarge clips of any length", _add_upscale, _upscale),
    "style": Task("clips from prompts, in a style", _add_style, _style, prompted=True),
}


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


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The arguments of whatever samples."""
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    add_settings(parser)


def add_settings(parser: argparse._ActionsContainer) -> None:
    """The arguments that `sampling_settings` reads."""
    parser.add_argument("--steps", type=at_least_one, help="calls of the network (run's own)")
    parser.add_argument("--sampler", help="ddim, ancestral or dpmpp_2m (run's own)")
    parser.add_argument(
        "--guidance", dest="guidance_scale", type=float, help="guidance scale (run's own)"
    )


def sampling_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings of `configs.Sample` that the command line gives."""
    given = ("sampler", "steps", "guidance_scale")
    return {k: v for k in given if (v := getattr(arguments, k)) is not None}


def at_least_one(text: str) -> int:
    """A type of argparse's."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def sampling_bar() -> OnStep:
    """A progress bar, which appears with the first step."""
    from tqdm import tqdm

    bar = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(desc="sampling", unit="step", total=total, dynamic_ncols=True)
        bar.update()
        if done == total:
            bar.close()

    return show


def run(arguments: argparse.Namespace) -> str:
    """Does the task that the command line asks for.

    Writes the clips as a GIF, an MP4 and X-T slices, and NAME.json of all that they depend on.
    Returns what to print: where these lie.

    Raises:
        UserError: the task cannot be done; nothing is written then.
    """
    from stunet import configs
    from stunet.generate import text

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
    out = arguments.out or arguments.workdir / "samples"
    rate = configs.frame_rate(sampled.config.data)
    captions = sampled.captions or prompts
    written = text.write(out, name, sampled.clips, captions, rate)
    settings = out / f"{name}.json"
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
