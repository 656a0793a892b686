"""Changes a clip to follow a prompt, and keeps its rough shape (video-to-video).

SDEdit (Meng et al., arXiv 2108.01073): noise the clip to an intermediate time, and denoise from
there. SDEdit works on a clip as it does on a picture, because the network makes the whole clip
at its full rate at once (Lumiere, arXiv 2401.12945, section 4.2).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError
from stunet.generate.text import Run, sample_clips
from stunet.progress import OnStep, nothing


def edit(
    run: Run,
    prompts: Sequence[str],
    clips: Float[np.ndarray, "n t h w c"],
    strength: float,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Float[np.ndarray, "n t h w c"]:
    """Changes clips to follow other prompts.

    Args:
        run: run that `text.load_unconditioned` has loaded.
        prompts: one prompt for each clip to make; "" for none.
        clips: clips in -1..1, one for each prompt, or one for all.
        strength: diffusion time to which the clips are noised, 0..1. At 0 the clips come back bit
            for bit. At 1 nothing is left of them, and the result is the same as that of
            `text.text_to_video` with these prompts and this seed. Denoising takes all
            `sample.steps` steps at any strength above 0.
        seed: see `text.text_to_video`.
        batch_size: see `text.text_to_video`.
        on_step: see `text.text_to_video`.

    Returns:
        Clips in -1..1.

    Raises:
        UserError: strength is out of range.
    """
    if not 0 <= strength <= 1:
        raise UserError(f"strength is {strength:g}; it is 0 (the clip itself) to 1 (none of it)")
    clips = np.broadcast_to(clips, (len(prompts), *clips.shape[1:])).astype(np.float32)
    if strength == 0:
        return clips
    # The schedule ends just short of pure noise: at 1 a trace of the clips would be left.
    start = None if strength == 1 else clips
    options = dict(seed=seed, batch_size=batch_size, on_step=on_step)
    return sample_clips(run, prompts, start=start, t_start=float(strength), **options)
