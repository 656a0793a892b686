"""Defines what a network gets besides the noisy clip and the caption.

Each kind of conditioning has its own function.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from stunet.diffusion import augmentation, keyframes, masks, upscaling

Given = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Says what a network gets in addition to noisy clips and captions, and in which form.

    These further inputs are a tuple of arrays `[b, ...]`, which is called `given` everywhere.

    Attributes:
        name: "none", "masks", "upscale" or "tsr".
        channels: maps the number of channels of clips to the number of channels of the network's
            input.
        draw: maps (key, clips) to (clips to train on, `given`).
        network_input: maps (x_t, *given) to the network's input `[b, t, h, w, c']`.
        clips_in_batch: clips that a batch holds side by side along the channels: the one to
            denoise, and a second one where what the network is given cannot be made from it.
        nothing: maps x_t to the `given` for sampling from the caption alone. None if the network
            needs more than the caption.
        clean: maps a batch of real clips, a NumPy array, to the low-resolution clips or keyframes
            that the network is given, before augmentation; None for other kinds of conditioning.
        give: maps (keys `[b]`, clean, level) to `given`, for sampling. For low-resolution clips and
            keyframes, this adds noise at the augmentation level `level` to `clean`, drawn from each
            row's key. For masks, `clean` is the pair of the user's clips and mask, and gets no
            noise. None if the network gets only noisy clips and captions.
        upscale_factor: ratio of the clip's height and width to those of the low-resolution clip.
        keyframe_stride: frames from one keyframe to the next.
        max_augmentation: largest augmentation level in training, from 0 (no noise is added to what
            the network is given) to 1 (only noise is left).
    """

    name: str
    channels: Callable[[int], int]
    draw: Callable[[Array, Array], tuple[Array, Given]]
    network_input: Callable[..., Array]
    clips_in_batch: int = 1
    nothing: Callable[[Array], Given] | None = None
    clean: Callable[[Any], Any] | None = None
    give: Callable[[Array, Any, Any], Given] | None = None
    upscale_factor: int = 1
    keyframe_stride: int = 1
    max_augmentation: float = 0.0


def captions_only() -> Conditioning:
    """Returns the conditioning on captions alone (text-to-video): `given` is empty."""
    return Conditioning(
        name="none",
        channels=lambda c: c,
        draw=lambda key, clips: (clips, ()),
        network_input=lambda x_t: x_t,
        nothing=lambda x_t: (),
    )


def on_masks(shares: Mapping[str, float]) -> Conditioning:
    """Returns the conditioning on a mask and on the part of the clean clip that the mask marks.

    See `stunet.diffusion.masks`.

    Args:
        shares: maps each kind of mask to its share of the training clips. The shares sum to 1.
    """

    def draw(key: Array, clips: Array) -> tuple[Array, Given]:
        clips, mask = masks.draw(key, clips, dict(shares))
        return clips, (clips, mask)

    return Conditioning(
        name="masks",
        channels=lambda c: 2 * c + 1,
        draw=draw,
        network_input=masks.network_input,
        nothing=lambda x_t: (jnp.zeros_like(x_t), jnp.zeros_like(x_t[..., :1])),
        give=lambda keys, clean, level: clean,
    )


def on_low_resolution(factor: int, max_augmentation: float) -> Conditioning:
    """Returns the conditioning in which the network also sees a low-resolution clip.

    See `stunet.diffusion.upscaling`.

    Args:
        factor: ratio of the clip's height and width to those of the low-resolution clip.
        max_augmentation: largest augmentation level in training, from 0 (no noise is added to what
            the network is given) to 1 (only noise is left).
    """
    return Conditioning(
        name="upscale",
        channels=lambda c: 2 * c + 1,
        draw=lambda key, clips: (clips, upscaling.draw(key, clips, factor, max_augmentation)),
        network_input=upscaling.network_input,
        clean=lambda clips: upscaling.shrink(clips, factor),
        give=_augmented,
        upscale_factor=factor,
        max_augmentation=max_augmentation,
    )


def on_low_resolution_latents(factor: int, max_augmentation: float) -> Conditioning:
    """Returns the conditioning on a low-resolution clip for a network on latents.

    The network is given latents of the enlarged low-resolution clip, on the grid of those that it
    denoises (`stunet.nn.autoencoder.enlarged`). A batch holds them after the clip's own latents,
    because only frames can be shrunk.

    Args:
        factor: see `on_low_resolution`.
        max_augmentation: see `on_low_resolution`.
    """

    def draw(key: Array, clips: Array) -> tuple[Array, Given]:
        x0, low = jnp.split(clips, 2, axis=-1)
        return x0, augmentation.draw(key, low, max_augmentation)

    return Conditioning(
        name="upscale",
        channels=lambda c: 2 * c + 1,
        draw=draw,
        network_input=upscaling.network_input,
        clips_in_batch=2,
        clean=lambda clips: np.split(clips, 2, axis=-1)[1],
        give=_augmented,
        upscale_factor=factor,
        max_augmentation=max_augmentation,
    )


def on_keyframes(stride: int, max_augmentation: float) -> Conditioning:
    """Returns the conditioning on keyframes (temporal super-resolution).

    See `stunet.diffusion.keyframes`.

    Args:
        stride: frames from one keyframe to the next.
        max_augmentation: largest augmentation level in training, from 0 (no noise is added to what
            the network is given) to 1 (only noise is left).
    """
    return Conditioning(
        name="tsr",
        channels=lambda c: 2 * c + 2,
        draw=lambda key, clips: (clips, keyframes.draw(key, clips, stride, max_augmentation)),
        network_input=keyframes.network_input,
        clean=lambda clips: keyframes.take(clips, stride),
        give=_augmented,
        keyframe_stride=stride,
        max_augmentation=max_augmentation,
    )


def _augmented(keys: Array, clean: Array, level: Array | float) -> Given:
    # The first noise of a row comes from its key itself, so this noise needs another key.
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, clean.shape[1:]))(keys)
    level = jnp.full(len(clean), level)
    return augmentation.corrupt(clean, level, noise), level
