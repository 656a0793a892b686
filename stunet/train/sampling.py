"""Sampling: one jitted step that a host loop calls, so that it can show progress; or all steps as
one function, to be exported."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from stunet import configs
from stunet.diffusion import samplers
from stunet.diffusion.guidance import guided_denoiser
from stunet.diffusion.prediction import add_noise
from stunet.train.conditioning import conditioning
from stunet.train.state import clip_shape
from stunet.train.step import make_predict, noise_schedule

# Folded into a row's key for the noise of the steps; above any row.
_LATER = 2**31 - 1


class Parts(NamedTuple):
    """What sampling is made of: pure functions, for `jax.jit`. `given` is what the network sees
    beside the noisy clip.

    Attributes:
        first: (keys `[b]`, clean, level, start) -> (the state before the first step, given): each
            row's from its own key. `clean`, `level` and `start` as `make_sampler`'s.
        estimate: (params, text, text_mask, given, x, i) -> the estimate x0 in step i, guided and
            thresholded.
        update: (key, state, x0, i) -> the state after step i.
    """

    first: Callable[..., tuple[samplers.SamplerState, Any]]
    estimate: Callable[..., Array]
    update: Callable[..., samplers.SamplerState]


def make_parts(config: configs.Config, t_start: float = 1.0) -> Parts:
    """The parts of sampling as a config's `sample` asks for it, from time `t_start` on."""
    predict, settings = make_predict(config), config.sample
    schedule, way = noise_schedule(config.diffusion), conditioning(config)
    grid = dict(schedule=schedule, sampler=settings.sampler, steps=settings.steps, t_start=t_start)
    times = samplers.time_grid(**grid)

    def first(keys, clean, level, start=None):
        noise = jax.vmap(lambda key: jax.random.normal(key, clip_shape(config, 1)[1:]))(keys)
        given = way.nothing(noise) if clean is None else way.give(keys, clean, level)
        if start is not None:
            noise = add_noise(start, noise, schedule(jnp.float32(t_start)))
        return samplers.init(noise), given

    def estimate(params, text, text_mask, given, x, i):
        denoise = guided_denoiser(
            lambda *inputs: predict(params, *inputs),
            text,
            text_mask,
            *given,
            schedule=schedule,
            prediction=config.diffusion.prediction,
            guidance_scale=settings.guidance_scale,
            threshold_mode=settings.threshold,
            percentile=settings.threshold_percentile,
        )
        return denoise(x, times[i])

    def update(key, state, x0, i):
        return samplers.make_step(lambda x, t: x0, key, **grid)(state, i)

    return Parts(first, estimate, update)


def row_keys(seed: int | UInt32[Array, ""], rows: Int[Array | np.ndarray, "b"]) -> Array:
    """The key of each row's noise, `[b]`."""
    key = jax.random.key(seed)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))


def later_key(key: Array) -> Array:
    """Of the noise that steps add, from a row's key: its first noise is not to come again."""
    return jax.random.fold_in(key, _LATER)


def make_sampler(config: configs.Config, t_start: float = 1.0) -> Callable[..., Iterator[Array]]:
    """Returns `sample(params, text, text_mask, seed, clean=None, level=0.0, first_row=0,
    start=None)`, which yields the clips' estimate after each step.

    The last one, float32 `[b, t, h, w, c]` in about -1..1, is the sample. Row i of the first noise
    depends on the seed and on `first_row` + i alone, not on how many clips are sampled with it;
    what ancestral sampling adds later depends on that too.

    A super-resolution network needs what it is given, `clean`, in -1..1: in space, low-resolution
    clips `[b, t, h / upscale.factor, w / upscale.factor, c]`; in time, keyframes
    `[b, (t - 1) / tsr.stride + 1, h, w, c]`. Before the first step they are augmented at `level`,
    which the network is told. One that is conditioned on masks may be given a pair: clips
    `[b, t, h, w, c]` and the mask `[b, t, h, w, 1]`, 1 where they are given.

    Sampling begins at time `t_start`, in (0, 1], and takes `sample.steps` steps from there: at 1
    from pure noise, below it from the clips `start`, -1..1, noised to that level (SDEdit).
    """
    parts = make_parts(config, t_start)
    first = jax.jit(parts.first)

    @jax.jit
    def step(params, text, text_mask, given, key, state, i):
        x0 = parts.estimate(params, text, text_mask, given, state.x, i)
        return parts.update(key, state, x0, i)

    def sample(
        params: Any,
        text: Float[np.ndarray, "b l d"],
        text_mask: Bool[np.ndarray, "b l"],
        seed: int,
        clean: Any = None,
        level: float = 0.0,
        first_row: int = 0,
        start: Float[np.ndarray, "b t h w c"] | None = None,
    ) -> Iterator[Array]:
        # The noise lies as the text does, or the second step would be compiled for another layout
        # than the first.
        lies = text.sharding if isinstance(text, jax.Array) else None
        draw = jax.jit(row_keys, out_shardings=lies)
        keys = draw(np.uint32(seed), first_row + np.arange(len(text)))
        state, given = first(keys, clean, level, start)
        later = later_key(row_keys(seed, [first_row])[0])
        for i in range(config.sample.steps):
            state = step(params, text, text_mask, given, later, state, i)
            yield state.x0

    return sample


def make_loop(config: configs.Config) -> Callable[..., Array]:
    """Returns `loop(params, text, text_mask, seed, clean=None, first_row=0)`: `make_sampler`'s last
    clips, by all steps in one program, for `jax.jit`; the batch may be symbolic."""
    parts = make_parts(config)

    def loop(
        params: Any,
        text: Float[Array, "b l d"],
        text_mask: Bool[Array, "b l"],
        seed: UInt32[Array, ""],
        clean: Any = None,
        first_row: Int[Array, ""] | int = 0,
    ) -> Float[Array, "b t h w c"]:
        keys = row_keys(seed, first_row + jnp.arange(text.shape[0]))
        first, given = parts.first(keys, clean, 0.0)
        later = later_key(keys[0])

        def step(i, state):
            x0 = parts.estimate(params, text, text_mask, given, state.x, i)
            return parts.update(later, state, x0, i)

        return jax.lax.fori_loop(0, config.sample.steps, step, first).x0

    return loop
