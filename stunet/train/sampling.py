"""Sampling: one jitted step that a host loop calls, so that it can show progress; or all steps as
one function, to be exported."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from stunet.diffusion import samplers
from stunet.diffusion.guidance import guided_denoiser
from stunet.diffusion.prediction import add_noise
from stunet.train.denoiser import Denoiser

# Folded into a row's key for the noise of the steps; above any row.
_LATER = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """How clips are sampled.

    Attributes:
        sampler: name of the sampler: "ddim", "ancestral" or "dpmpp_2m".
        steps: number of denoising steps.
        guidance_scale: scale of classifier-free guidance; 1 is none, 0 ignores the caption.
        threshold: how estimates are kept in -1..1: "dynamic", "static" or "none".
        threshold_percentile: percentile of the dynamic threshold, 0..100.
    """

    sampler: str
    steps: int
    guidance_scale: float
    threshold: str
    threshold_percentile: float


class SamplerFunctions(NamedTuple):
    """The pure functions that sampling is made of, for `jax.jit`.

    `given` is what the network sees beside the noisy clip (`stunet.train.conditioning`).

    Attributes:
        first: maps (keys `[b]`, clean, level, start) to (the state before the first step, given);
            each row draws from its own key. `clean`, `level` and `start` are `make_sampler`'s.
        estimate: maps (params, text, text_mask, given, x, i) to the estimate x0 in step i, guided
            and thresholded.
        update: maps (key, state, x0, i) to the state after step i.
    """

    first: Callable[..., tuple[samplers.SamplerState, Any]]
    estimate: Callable[..., Array]
    update: Callable[..., samplers.SamplerState]


def make_functions(
    denoiser: Denoiser, settings: SamplerSettings, t_start: float = 1.0
) -> SamplerFunctions:
    """Returns the functions of sampling from noise time `t_start` on."""
    schedule, conditioning = denoiser.schedule, denoiser.conditioning
    grid = dict(schedule=schedule, sampler=settings.sampler, steps=settings.steps, t_start=t_start)
    times = samplers.time_grid(**grid)

    def first(keys, clean, level, start=None):
        shape = denoiser.clip.shape
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        if clean is None:
            given = conditioning.nothing(noise)
        else:
            given = conditioning.give(keys, clean, level)
        if start is not None:
            noise = add_noise(start, noise, schedule(jnp.float32(t_start)))
        return samplers.init(noise), given

    def estimate(params, text, text_mask, given, x, i):
        denoise = guided_denoiser(
            lambda *inputs: denoiser.predict(params, *inputs),
            text,
            text_mask,
            *given,
            schedule=schedule,
            prediction=denoiser.prediction,
            guidance_scale=settings.guidance_scale,
            threshold_mode=settings.threshold,
            percentile=settings.threshold_percentile,
        )
        return denoise(x, times[i])

    def update(key, state, x0, i):
        return samplers.make_step(lambda x, t: x0, key, **grid)(state, i)

    return SamplerFunctions(first, estimate, update)


def row_keys(seed: int | UInt32[Array, ""], rows: Int[Array | np.ndarray, "b"]) -> Array:
    """Returns the random key of each row's noise, `[b]`."""
    key = jax.random.key(seed)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))


def later_key(key: Array) -> Array:
    """Returns the key of the noise that later steps add, so that a row's first noise never returns.

    Args:
        key: key of the row's first noise.
    """
    return jax.random.fold_in(key, _LATER)


def make_sampler(
    denoiser: Denoiser, settings: SamplerSettings, t_start: float = 1.0
) -> Callable[..., Iterator[Array]]:
    """Returns `sample(params, text, text_mask, seed, clean=None, level=0.0, first_row=0,
    start=None)`, which yields the estimate of the clips after each step.

    The last estimate, float32 `[b, t, h, w, c]` in about -1..1, is the sample. The first noise of
    row i depends on the seed and on `first_row` + i alone, not on how many clips are sampled with
    it. What ancestral sampling adds later depends on that number too.

    A super-resolution network needs what it is given, `clean`, in -1..1: in space, low-resolution
    clips `[b, t, h / factor, w / factor, c]`; in time, keyframes
    `[b, (t - 1) / stride + 1, h, w, c]`. Before the first step they are augmented at `level`,
    which the network is told. A network that is conditioned on masks may be given a pair: clips
    `[b, t, h, w, c]` and the mask `[b, t, h, w, 1]`, 1 where they are given.

    Args:
        denoiser: the network and its conditioning.
        settings: sampler, steps and guidance.
        t_start: noise time, in (0, 1], at which sampling begins; all steps are taken from there. At
            1 it begins with pure noise, below 1 with the clips `start`, -1..1, noised to that level
            (SDEdit).
    """
    functions = make_functions(denoiser, settings, t_start)
    first = jax.jit(functions.first)

    @jax.jit
    def step(params, text, text_mask, given, key, state, i):
        x0 = functions.estimate(params, text, text_mask, given, state.x, i)
        return functions.update(key, state, x0, i)

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
        # The noise has the sharding of the text, or the second step would be compiled for another
        # layout than the first.
        sharding = text.sharding if isinstance(text, jax.Array) else None
        draw = jax.jit(row_keys, out_shardings=sharding)
        keys = draw(np.uint32(seed), first_row + np.arange(len(text)))
        state, given = first(keys, clean, level, start)
        later = later_key(row_keys(seed, [first_row])[0])
        for i in range(settings.steps):
            state = step(params, text, text_mask, given, later, state, i)
            yield state.x0

    return sample


def make_loop(denoiser: Denoiser, settings: SamplerSettings) -> Callable[..., Array]:
    """Returns `loop(params, text, text_mask, seed, clean=None, first_row=0)`, which gives
    `make_sampler`'s last clips by all steps in one program, for `jax.jit`; the batch may be
    symbolic."""
    functions = make_functions(denoiser, settings)

    def loop(
        params: Any,
        text: Float[Array, "b l d"],
        text_mask: Bool[Array, "b l"],
        seed: UInt32[Array, ""],
        clean: Any = None,
        first_row: Int[Array, ""] | int = 0,
    ) -> Float[Array, "b t h w c"]:
        keys = row_keys(seed, first_row + jnp.arange(text.shape[0]))
        first, given = functions.first(keys, clean, 0.0)
        later = later_key(keys[0])

        def step(i, state):
            x0 = functions.estimate(params, text, text_mask, given, state.x, i)
            return functions.update(later, state, x0, i)

        return jax.lax.fori_loop(0, settings.steps, step, first).x0

    return loop
