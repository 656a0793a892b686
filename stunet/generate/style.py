"""Makes clips in a style, by mixing a run's spatial weights with those of a run in that style.

See `stunet.weights.style`, and `stunet.weights.lora_files` for a style that is a LoRA file.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError
from stunet.generate.text import Run, sample_clips
from stunet.nn.parameters import EMPTY_TEXT
from stunet.nn.text import TextEncoder
from stunet.progress import OnStep, note, nothing
from stunet.train.state import abstract_state
from stunet.weights import diffusers_config, diffusers_unet, lora_files
from stunet.weights.lora import merge
from stunet.weights.style import check_alpha, interpolate


def stylise(
    run: Run,
    style: Run,
    prompts: Sequence[str],
    alphas: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Float[np.ndarray, "n t h w c"]:
    """Samples each prompt with each share of the style.

    Args:
        run: run that gives the temporal layers and all settings.
        style: run with spatial layers of the same shapes. Only its weights and its text encoder
            are used.
        prompts: captions like those that the style was trained on.
        alphas: shares of the style in the mixture. 0 keeps the run's spatial weights, and 1
            takes the style's.
        seed: seed of the noise, which is the same at each alpha.
        batch_size: clips sampled at once; None samples one for each prompt.
        on_step: called with the number of steps done and the number of all steps, over all alphas,
            and with the estimate of the clips.

    Returns:
        Clips in -1..1: all prompts at the first alpha, then all at the next.

    Raises:
        UserError: an alpha is not in 0..1, the two runs do not fit together, or the settings ask
            for autoguidance.
    """
    _check_alone(run)
    ours, theirs = run.parts.denoiser.text, style.parts.denoiser.text
    if not ours.matches(theirs):
        raise UserError(
            f"the text encoder is {dataclasses.asdict(ours)}, and the style's "
            f"{dataclasses.asdict(theirs)}; train both with the same"
        )
    if not run.parts.space.matches(style.parts.space):
        raise UserError(
            f"the run denoises {run.parts.space}, and the style {style.parts.space}; train both on "
            "the same"
        )
    for alpha in alphas:  # Check all before the first is sampled, which takes long.
        check_alpha(alpha)

    def mixed(alpha: float) -> Any:
        return interpolate(run.parts.denoiser.trainable, run.params, style.params, alpha)

    return _sample_each(run, mixed, prompts, alphas, seed, batch_size, on_step)


def stylise_with_lora(
    run: Run,
    file: pathlib.Path,
    prompts: Sequence[str],
    alphas: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Float[np.ndarray, "n t h w c"]:
    """Samples each prompt with a LoRA file, multiplied by each of several numbers.

    The file changes the U-Net, and text models of CLIP if the run's text encoder has these.

    Args:
        run: run whose spatial half is a U-Net of diffusers.
        file: LoRA file for that U-Net; see `stunet.weights.lora_files`.
        prompts: captions like those that the LoRA was trained on.
        alphas: factors of the LoRA's change. 0 keeps the run's spatial weights.
        seed: see `stylise`.
        batch_size: see `stylise`.
        on_step: see `stylise`.

    Returns:
        Clips in -1..1: all prompts at the first alpha, then all at the next.

    Raises:
        UserError: the file cannot be read, it does not fit the run's network, or the settings ask
            for autoguidance.
    """
    _check_alone(run)
    diffusers_config.to_diffusers(run.parts)  # Other networks have no names in diffusers.
    denoiser = run.parts.denoiser
    state = abstract_state(denoiser, run.parts.optimizer, run.mesh)
    table = diffusers_unet.table(denoiser, state)
    lora, encoder = lora_files.read_with_text(file, table, denoiser.text)
    if lora.left_out:
        note(lora.left_out)

    @functools.cache
    def encode(alpha: float) -> TextEncoder | None:
        return encoder.changed(lora.of_texts(alpha)) if alpha and encoder else None

    def mixed(alpha: float) -> Any:
        params = merge(run.params, lora, alpha)
        if EMPTY_TEXT in params and (changed := encode(alpha)):
            params[EMPTY_TEXT] = changed.empty().astype(params[EMPTY_TEXT].dtype)
        return params

    return _sample_each(run, mixed, prompts, alphas, seed, batch_size, on_step, encode)


def _check_alone(run: Run) -> None:
    """Checks that a run is sampled without a weaker version of it.

    Raises:
        UserError: the settings ask for autoguidance.
    """
    if run.parts.sampling.autoguidance_scale != 1:
        raise UserError(
            f"sample.autoguidance_scale is {run.parts.sampling.autoguidance_scale:g}; a mixture of "
            "weights has no weaker version: give --autoguidance 1"
        )


def _sample_each(
    run: Run,
    mixed: Callable[[float], Any],
    prompts: Sequence[str],
    alphas: Sequence[float],
    seed: int,
    batch_size: int | None,
    on_step: OnStep,
    encode: Callable[[float], TextEncoder | None] = lambda alpha: None,
) -> Float[np.ndarray, "n t h w c"]:
    """Samples each prompt with the parameters that `mixed` returns for each alpha.

    `encode` returns the text encoder for each alpha, or None for the run's own.
    """
    clips = []
    for number, alpha in enumerate(alphas):
        clips.append(
            sample_clips(
                dataclasses.replace(run, params=mixed(alpha)),
                prompts,
                seed=seed,
                batch_size=batch_size,
                encode=encode(alpha),
                on_step=lambda done, total, clips, number=number: on_step(
                    number * total + done, len(alphas) * total, clips
                ),
            )
        )
    return np.concatenate(clips)
