"""What a network is given beside the noisy clip: one table of the ways there are."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from stunet import configs
from stunet.diffusion import augmentation, keyframes, masks, upscaling

Given = tuple[Array, ...]


class Conditioning(NamedTuple):
    """A way to condition a network. What is given of a batch is a tuple of arrays `[b, ...]`.

    Attributes:
        channels: channels of a clip -> of the network's input.
        draw: (key, clips, config) -> the clips to be learnt and what is given of them.
        network_input: (x_t, *given) -> the network's input.
        nothing: x_t -> given, where there is nothing but the caption; None: it cannot do without.
        clean: (clips, config) -> what the network is to be given of real clips, before
            augmentation. None: there is nothing.
        give: (keys `[b]`, clean, level) -> given, to sample with: `clean` augmented at `level` by
            noise of each row's key, or the clips and the mask that a user gives. None: there is
            nothing to give.
    """

    channels: Callable[[int], int]
    draw: Callable[[Array, Array, configs.Config], tuple[Array, Given]]
    network_input: Callable[..., Array]
    nothing: Callable[[Array], Given] | None
    clean: Callable[[Any, configs.Config], Any] | None
    give: Callable[[Array, Any, Any], Given] | None


def _draw_masks(key: Array, clips: Array, config: configs.Config) -> tuple[Array, Given]:
    clips, mask = masks.draw(key, clips, dataclasses.asdict(config.masks))
    return clips, (clips, mask)


def _draw_low(key: Array, clips: Array, config: configs.Config) -> tuple[Array, Given]:
    upscale = config.upscale
    return clips, upscaling.draw(key, clips, upscale.factor, upscale.max_augmentation)


def _draw_keyframes(key: Array, clips: Array, config: configs.Config) -> tuple[Array, Given]:
    return clips, keyframes.draw(key, clips, config.tsr.stride, config.tsr.max_augmentation)


def _augmented(keys: Array, clean: Array, level: Array | float) -> Given:
    # Not by the noise that the row itself begins with.
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    hiding = jax.vmap(lambda key: jax.random.normal(key, clean.shape[1:]))(keys)
    level = jnp.full(len(clean), level)
    return augmentation.corrupt(clean, level, hiding), level


CONDITIONINGS = {
    "none": Conditioning(
        channels=lambda c: c,
        draw=lambda key, clips, config: (clips, ()),
        network_input=lambda x_t: x_t,
        nothing=lambda x_t: (),
        clean=None,
        give=None,
    ),
    "masks": Conditioning(
        channels=lambda c: 2 * c + 1,
        draw=_draw_masks,
        network_input=masks.network_input,
        nothing=lambda x_t: (jnp.zeros_like(x_t), jnp.zeros_like(x_t[..., :1])),
        clean=None,
        give=lambda keys, clean, level: clean,
    ),
    "upscale": Conditioning(
        channels=lambda c: 2 * c + 1,
        draw=_draw_low,
        network_input=upscaling.network_input,
        nothing=None,
        clean=lambda clips, config: upscaling.shrink(clips, config.upscale.factor),
        give=_augmented,
    ),
    "tsr": Conditioning(
        channels=lambda c: 2 * c + 2,
        draw=_draw_keyframes,
        network_input=keyframes.network_input,
        nothing=None,
        clean=lambda clips, config: keyframes.take(clips, config.tsr.stride),
        give=_augmented,
    ),
}


def kind(config: configs.Config) -> str:
    """Which of CONDITIONINGS a config asks for; it asks for one at most."""
    asked = {
        "upscale": config.upscale.factor > 1,
        "tsr": config.tsr.stride > 1,
        "masks": any(dataclasses.asdict(config.masks).values()),
    }
    return next((name for name, is_set in asked.items() if is_set), "none")


def conditioning(config: configs.Config) -> Conditioning:
    """How the network of a config is conditioned."""
    return CONDITIONINGS[kind(config)]
