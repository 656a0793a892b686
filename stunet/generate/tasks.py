"""The tasks of `stunet sample TASK`, one function each.

A task loads the runs that it needs, reads the user's files, samples, and returns the clips
together with the settings to record beside them.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from stunet.errors import UserError
from stunet.generate import cascade, inputs, masked, networks, pictures, style, text, upscale, video
from stunet.generate.request import Request, Sampled
from stunet.train.parts import read_parts
from stunet.weights import lora_files


def text_to_video(
    request: Request, tsr: pathlib.Path | None = None, augmentation: float | None = None
) -> Sampled:
    """Samples clips from prompts, through a keyframe cascade if `tsr` is given.

    Args:
        request: see `Request`.
        tsr: working directory of a temporal super-resolution run, which fills in the frames
            between the keyframes that `request.workdir` makes.
        augmentation: noise level of the keyframes when the `tsr` network sees them. None means
            `cascade.AUGMENTATION`, but at most the highest level that the network was trained at.

    Raises:
        UserError: a run cannot do this task, or `augmentation` is given without `tsr`.
    """
    if tsr:
        filled = cascade.cascade(
            request.workdir,
            tsr,
            request.prompts,
            augmentation=augmentation,
            **request.options,
            **request.loading,
        )
        keyframes_checkpoint, tsr_checkpoint = filled.checkpoints
        settings = {
            "tsr": tsr,
            "tsr_checkpoint": tsr_checkpoint,
            "augmentation": filled.augmentation,
        }
        return Sampled(filled.clips, filled.parts, keyframes_checkpoint, settings, ("cascade",))
    if augmentation is not None:
        raise UserError(
            "--augmentation is the noise level of the keyframes of a cascade; give --tsr too"
        )
    run = text.load_unconditioned(request.workdir, **request.loading)
    clips = text.sample_clips(run, request.prompts, **request.options)
    return Sampled(clips, run.parts, run.checkpoint)


def image_to_video(request: Request, image: pathlib.Path) -> Sampled:
    """Samples clips that begin with the picture in the file `image`."""
    run = masked.load_masked(request.workdir, **request.loading)
    picture = pictures.read_picture(image, run.parts.clip)[None]
    clips = masked.image_to_video(run, request.prompts, picture, **request.options)
    settings, labels = {"image": image}, ("image", image.stem)
    return Sampled(clips, run.parts, run.checkpoint, settings, labels, given=picture[:, None])


def inpaint(
    request: Request,
    clip: pathlib.Path,
    mask: pathlib.Path | None = None,
    box: str | None = None,
) -> Sampled:
    """Repaints a part of the video file `clip`: where a mask is white, or inside a box.

    Args:
        request: see `Request`.
        clip: video file.
        mask: video file of the same size and length as `clip`, or a picture file for all frames;
            not needed if `box` is given.
        box: rectangle, as `inputs.read_box` reads it.
    """
    run = masked.load_masked(request.workdir, **request.loading)
    data = run.parts.clip
    frames = inputs.read_clip(clip, data)[None]
    hole = inputs.read_box(box, data) if box else inputs.read_mask(mask, clip, data)
    clips = masked.inpaint(run, request.prompts, frames, hole, **request.options)
    settings, labels = {"video": clip, "mask": mask, "box": box}, ("inpaint", clip.stem)
    # The hole is grey where the task shows what it was given.
    given = np.where(hole[..., None], 0, frames)
    return Sampled(clips, run.parts, run.checkpoint, settings, labels, given=given)


def cinemagraph(
    request: Request,
    image: pathlib.Path,
    mask: pathlib.Path | None = None,
    box: str | None = None,
) -> Sampled:
    """Samples clips of a picture in which only a region moves.

    Args:
        request: see `Request`.
        image: picture file.
        mask: picture file of the same size, white where the picture moves; not needed if `box` is
            given.
        box: rectangle, as `inputs.read_box` reads it.
    """
    run = masked.load_masked(request.workdir, **request.loading)
    picture = pictures.read_picture(image, run.parts.clip)[None]
    data = run.parts.clip
    region = inputs.read_box(box, data) if box else inputs.read_region(mask, data)
    clips = masked.cinemagraph(run, request.prompts, picture, region, **request.options)
    settings, labels = {"image": image, "mask": mask, "box": box}, ("cinemagraph", image.stem)
    given = np.where(inputs.outline(region)[..., None], 1, picture)[:, None]
    return Sampled(clips, run.parts, run.checkpoint, settings, labels, given=given)


def video_to_video(request: Request, clip: pathlib.Path, strength: float) -> Sampled:
    """Changes the video file `clip` to follow prompts. `video.edit` explains `strength`."""
    run = text.load_unconditioned(request.workdir, **request.loading)
    frames = inputs.read_clip(clip, run.parts.clip)[None]
    clips = video.edit(run, request.prompts, frames, strength, **request.options)
    settings = {"video": clip, "strength": strength}
    labels = ("video", clip.stem, f"strength{strength:g}")
    return Sampled(clips, run.parts, run.checkpoint, settings, labels, given=frames)


def enlarge(
    request: Request,
    clip: pathlib.Path | None = None,
    base: pathlib.Path | None = None,
    *,
    overlap: int = upscale.OVERLAP,
    weights: str = "uniform",
    augmentation: float | None = None,
    batch_size: int | None = None,
) -> Sampled:
    """Enlarges a video file, or clips that a low-resolution run first makes from the prompts.

    Each clip is denoised in overlapping segments. A segment has as many frames as the clips that
    the super-resolution run was trained on.

    Args:
        request: see `Request`.
        clip: video file of any length; not needed if `base` is given.
        base: working directory of the low-resolution run.
        overlap: frames that neighbouring segments share.
        weights: how frames that segments share are averaged, "uniform" or "ramp".
        augmentation: noise level of the low-resolution clip when the network sees it. None means 0
            for a video file. For clips of `base`, None means `upscale.AUGMENTATION`, but at most
            the highest level that the network was trained at.
        batch_size: segments sampled at once; None means one for each device.
    """
    prompts, seed = request.prompts, request.seed
    # Without a caption there is nothing to guide towards, and guidance doubles the work.
    unguided = {} if any(prompts) else {"guidance_scale": 0.0}
    upscaler = upscale.load(request.workdir, **(unguided | request.loading))
    parts, settings = upscaler.parts, {"video": clip}
    if augmentation is None:
        augmentation = min(
            upscale.AUGMENTATION, parts.denoiser.conditioning.max_augmentation
        ) * bool(base)
    # Before the low-resolution clips are made, which takes long.
    upscale.check_settings(parts, overlap, weights, augmentation)
    if base:
        base = networks.find(base, "text")
        upscale.check_base(read_parts(base), parts)
        run = text.load_unconditioned(base, **request.loading)
        low = text.sample_clips(run, prompts, seed=seed, on_step=request.on_step)
        seed = cascade.later_seed(seed)
        settings = {"base": base, "base_checkpoint": run.checkpoint}
    else:
        low = [upscale.read_low(clip, parts)] * len(prompts)
    settings |= {"overlap": overlap, "weights": weights, "augmentation": augmentation}
    clips = []
    for number, (low_clip, prompt) in enumerate(zip(low, prompts, strict=True)):
        upscaled = upscale.upscale(
            upscaler,
            low_clip,
            prompt,
            overlap=overlap,
            weights=weights,
            augmentation=augmentation,
            seed=seed,
            number=number,
            batch_size=batch_size,
            on_step=lambda done, total, clips, number=number: request.on_step(
                number * total + done, len(prompts) * total, clips
            ),
        )
        clips.append(upscaled.clip)
        settings["segments"] = upscaled.segments.starts
    labels = ("upscaled",) if base else (clip.stem, "upscaled")
    return Sampled(
        np.stack(clips), parts, upscaler.checkpoint, settings, labels, given=np.stack(low)
    )


def stylise(request: Request, style_workdir: pathlib.Path, alphas: Sequence[float]) -> Sampled:
    """Samples clips from prompts at several mixtures of the run's and a style's spatial weights.

    Args:
        request: see `Request`.
        style_workdir: working directory of the run that has the style's spatial weights.
        alphas: shares of the style, 0 (none) to 1.
    """
    run = text.load_unconditioned(request.workdir, **request.loading)
    style_workdir = networks.find(style_workdir, "style")
    other = request.load(style_workdir)
    clips = style.stylise(run, other, request.prompts, alphas, **request.options)
    settings = {"style": style_workdir, "style_checkpoint": other.checkpoint}
    return _at_alphas(request, run, clips, alphas, settings)


def stylise_with_lora(request: Request, file: pathlib.Path, alphas: Sequence[float]) -> Sampled:
    """Samples clips from prompts with a LoRA file, multiplied by each of several numbers.

    Args:
        request: see `Request`.
        file: LoRA file for the U-Net that the run was inflated from.
        alphas: factors of the LoRA's change.
    """
    lora_files.check_suffix(file)
    run = text.load_unconditioned(request.workdir, **request.loading)
    clips = style.stylise_with_lora(run, file, request.prompts, alphas, **request.options)
    return _at_alphas(request, run, clips, alphas, {"style_lora": file})


def _at_alphas(
    request: Request,
    run: text.Run,
    clips: np.ndarray,
    alphas: Sequence[float],
    settings: Mapping[str, object],
) -> Sampled:
    """Returns the clips of a style: all prompts at the first alpha, then all at the next."""
    prompts = request.prompts
    return Sampled(
        clips,
        run.parts,
        run.checkpoint,
        {**settings, "alphas": alphas},
        ("style", *(f"{alpha:g}" for alpha in alphas)),
        [f"alpha {alpha:g}: {prompt}" for alpha in alphas for prompt in prompts],
        columns=len(prompts),
    )
