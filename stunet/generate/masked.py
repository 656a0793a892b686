"""Completes clips from a given part: image-to-video, inpainting and cinemagraphs.

Lumiere (arXiv 2401.12945, section 4.1) makes all three with one mechanism. The network sees
[J, C, M]: the noisy clip, the given part of the clean clip, and the mask of that part
(`stunet.diffusion.masks`).

The network makes every pixel itself, and loses some detail of the given pixels. After the last
step, the given pixels (M = 1) therefore replace the network's pixels. The clips of all three tasks
hold the given pixels bit for bit, and a cinemagraph does not move at all outside its region.
`put_back=False` leaves the network's pixels in place.

A network on latents is given the latents of the given frames, and the mask on their grid. The given
pixels replace those of the decoded clips, so the clips hold them bit for bit here too.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from stunet.diffusion.masks import MASKS
from stunet.errors import UserError
from stunet.generate.text import Loader, Run, load, sample_clips
from stunet.progress import OnStep, nothing
from stunet.train.parts import read_parts


def load_masked(workdir: pathlib.Path, *, loader: Loader = load, **sample: object) -> Run:
    """Loads a run whose network is conditioned on masks.

    Arguments are those of `text.load`, and the function that loads the run.

    Raises:
        UserError: as `text.load`, or the run was trained without masks.
    """
    if read_parts(workdir).denoiser.conditioning.name != "masks":
        raise UserError(
            f"{workdir} holds a network that cannot be given a part of the clip; train one with "
            "masks.image, masks.inpaint or masks.cinemagraph set (shares, which sum to 1 with "
            "masks.text and masks.outpaint), as the experiment masked_digits"
        )
    return loader(workdir, **sample)


def complete(
    run: Run,
    prompts: Sequence[str],
    clips: Float[np.ndarray, "n t h w c"],
    given: Bool[np.ndarray, "n t h w 1"],
    *,
    put_back: bool = True,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Float[np.ndarray, "n t h w c"]:
    """Completes clips of which only some pixels are given.

    Args:
        run: run that `load_masked` has loaded.
        prompts: one prompt for each clip; "" for none.
        clips: clips in -1..1; pixels that are not given do not matter.
        given: mask, True where a pixel is given; broadcast against the clips.
        put_back: True replaces the network's output at given pixels by the given pixels.
        seed: see `text.text_to_video`.
        batch_size: see `text.text_to_video`.
        on_step: see `text.text_to_video`.

    Returns:
        Clips in -1..1.

    Raises:
        UserError: the run makes clips of another size, or no latent of the run's autoencoder lies
            in the part to make.
    """
    shape, count = run.parts.clip.shape, len(prompts)
    if clips.shape[1:] != shape:
        raise UserError(
            f"clips are {'x'.join(map(str, clips.shape[1:]))} (frames, rows, columns, channels), "
            f"and the run makes {'x'.join(map(str, shape))}"
        )
    clips = np.broadcast_to(clips, (count, *shape)).astype(np.float32)
    given = np.broadcast_to(given, (count, *shape[:-1], 1))
    space = run.parts.space
    seen = space.from_frames(clips), space.from_mask(given).astype(np.float32)
    sampled = sample_clips(
        run,
        prompts,
        seen,
        seed=seed,
        batch_size=batch_size,
        on_step=on_step,
    )
    return np.where(given, clips, sampled) if put_back else sampled


def image_to_video(
    run: Run, prompts: Sequence[str], images: Float[np.ndarray, "n h w c"], **options: object
) -> Float[np.ndarray, "n t h w c"]:
    """Makes clips that begin with a picture.

    The network is given the first frame, and makes all others.

    Args:
        run: see `complete`.
        prompts: see `complete`.
        options: see `complete`.
        images: pictures in -1..1, one for each prompt, or one for all.
    """
    everywhere = np.ones(images.shape[1:3], bool)
    return complete(run, prompts, *_of_picture(run, images, "image", everywhere), **options)


def cinemagraph(
    run: Run,
    prompts: Sequence[str],
    images: Float[np.ndarray, "n h w c"],
    moving: Bool[np.ndarray, "h w"],
    **options: object,
) -> Float[np.ndarray, "n t h w c"]:
    """Makes a region of pictures move.

    The first frame is the picture, and the network is given all of it. In later frames, the network
    is given the picture outside the region, and makes the inside.

    Args:
        run: see `complete`.
        prompts: see `complete`.
        options: see `complete`.
        images: pictures in -1..1, one for each prompt, or one for all.
        moving: True inside the region.
    """
    return complete(run, prompts, *_of_picture(run, images, "cinemagraph", moving), **options)


def inpaint(
    run: Run,
    prompts: Sequence[str],
    clips: Float[np.ndarray, "n t h w c"],
    hole: Bool[np.ndarray, "..."],
    **options: object,
) -> Float[np.ndarray, "n t h w c"]:
    """Repaints a part of clips, the hole. The network is given all pixels outside the hole.

    Args:
        run: see `complete`.
        prompts: see `complete`.
        options: see `complete`.
        clips: clips in -1..1, one for each prompt, or one for all.
        hole: True where to paint: `[h, w]`, the same in all frames, or `[t, h, w]`.
    """
    return complete(run, prompts, clips, ~hole[None, ..., None], **options)


def _of_picture(run: Run, images, kind: str, box) -> tuple[np.ndarray, np.ndarray]:
    """Returns clips with a picture in every frame, and the mask of the given pixels.

    Args:
        run: run that `load_masked` has loaded.
        images: pictures, `[n, h, w, c]`.
        kind: kind of mask, a key of `MASKS`.
        box: `[h, w]`, True inside the region that moves; its values matter for cinemagraphs only.
    """
    frames = run.parts.clip.frames
    first = (np.arange(frames) == 0)[:, None, None]
    given = np.broadcast_to(MASKS[kind](box, first), (frames, *box.shape))
    return np.repeat(images[:, None], frames, axis=1), given[None, ..., None]
