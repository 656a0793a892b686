"""Sampling: one jitted step that a host loop calls, so that it can show progress."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from stunet import configs
from stunet.diffusion import masks, samplers, upscaling
from stunet.diffusion.guidance import guided_denoiser
from stunet.train.state import clip_shape, is_conditioned, is_upscaling, make_network
from stunet.train.step import noise_schedule


def make_sampler(config: configs.Config) -> Callable[..., Iterator[Array]]:
    """Returns `sample(params, text, text_mask, seed, low=None)`, which yields the clips' estimate
    after each step.

    The last one, float32 `[b, t, h, w, c]` in about -1..1, is the sample. Row i of the noise
    depends on the seed and on i alone, not on how many clips are sampled with it.

    A super-resolution network needs `low`, clean low-resolution clips
    `[b, t, h / upscale.factor, w / upscale.factor, c]` in -1..1: it is told that their augmentation
    level is 0.
    """
    network, settings = make_network(config), config.sample
    schedule = noise_schedule(config.diffusion)

    def apply(params, x_t, time, text, text_mask, *low):
        if is_upscaling(config):
            x_t = upscaling.network_input(x_t, *low, jnp.zeros(len(x_t)))
        elif is_conditioned(config):
            # Nothing is given but the text.
            x_t = masks.network_input(x_t, jnp.zeros_like(x_t), jnp.zeros_like(x_t[..., :1]))
        return network.apply({"params": params}, x_t, time, text, text_mask)

    @jax.jit
    def first(keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, clip_shape(config, 1)[1:]))(keys)
        return samplers.init(noise)

    @jax.jit
    def step(params, text, text_mask, low, key, state, i):
        denoise = guided_denoiser(
            lambda *inputs: apply(params, *inputs),
            text,
            text_mask,
            *low,
            schedule=schedule,
            prediction=config.diffusion.prediction,
            guidance_scale=settings.guidance_scale,
            threshold_mode=settings.threshold,
            percentile=settings.threshold_percentile,
        )
        update = samplers.make_step(
            denoise, key, schedule=schedule, sampler=settings.sampler, steps=settings.steps
        )
        return update(state, i)

    def sample(
        params: Any,
        text: Float[np.ndarray, "b l d"],
        text_mask: Bool[np.ndarray, "b l"],
        seed: int,
        low: Float[np.ndarray, "b t h2 w2 c"] | None = None,
    ) -> Iterator[Array]:
        key, low = jax.random.key(seed), () if low is None else (low,)
        state = first(jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(text))))
        for i in range(settings.steps):
            state = step(params, text, text_mask, low, key, state, i)
            yield state.x0

    return sample
