"""The tasks of `stunet sample TASK`: one table, from a name to its arguments and its function.

What a task does is a function of a module beside this one, imported when the task runs, so that the
command line starts without JAX.
"""

import argparse
import pathlib

from stunet.errors import UserError
from stunet.generate import given
from stunet.generate.task import Request, Sampled, Task, at_least_one, sampling_bar


def _text(request: Request) -> Sampled:
    from stunet.generate import cascade, text

    own, options = request.own, request.options
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


def _upscale(request: Request) -> Sampled:
    import numpy as np

    from stunet.generate import cascade, text, upscale

    own, prompts, seed = request.own, request.prompts, request.seed
    # Without a caption there is nothing to guide towards, and half of the work to be saved.
    unguided = {} if any(prompts) else {"guidance_scale": 0.0}
    upscaler = upscale.load(request.workdir, **(unguided | request.sample))
    config, settings = upscaler.config, {"video": own.video}
    augmentation = own.augmentation
    if augmentation is None:
        augmentation = min(upscale.AUGMENTATION, config.upscale.max_augmentation) * bool(own.base)
    # Before the base's clips, which take long.
    upscale.check_settings(config, own.overlap, own.weights, augmentation)
    if own.base:
        upscale.check_base(text.load_config(own.base), config)
        base = text.load_unconditioned(own.base, **request.sample)
        low = text.sample_clips(base, prompts, seed=seed, on_step=sampling_bar())
        seed = cascade.later_seed(seed)
        settings = {"base": own.base, "base_checkpoint": base.checkpoint}
    else:
        low = [upscale.read_low(own.video, config)] * len(prompts)
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
    clips = style.stylise(run, other, prompts, own.alpha, **request.options)
    return Sampled(
        clips,
        run.config,
        run.checkpoint,
        {"style": own.style_workdir, "style_checkpoint": other.checkpoint, "alphas": own.alpha},
        ("style", *(f"{alpha:g}" for alpha in own.alpha)),
        [f"alpha {alpha:g}: {prompt}" for alpha in own.alpha for prompt in prompts],
        columns=len(prompts),
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
    **given.TASKS,
    "upscale": Task("enlarge clips of any length", _add_upscale, _upscale),
    "style": Task("clips from prompts, in a style", _add_style, _style, prompted=True),
}
