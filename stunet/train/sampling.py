"""Samples clips from a network.

`make_sampler` calls one jitted step in a loop on the host, so that it can show progress.
`make_loop` puts all steps in one function, which can be exported.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from stunet.diffusion import samplers
from stunet.diffusion.guidance import guided_denoiser
from stunet.diffusion.prediction import add_noise
from stunet.errors import UserError
from stunet.train.objectives.denoiser import Denoiser

# Folded into a row's key for the noise of the steps; above any row.
_LATER = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """Says how clips are sampled.

    Attributes:
        sampler: name of the sampler, a key of `samplers.SAMPLERS`.
        steps: number of calls of the network (with guidance, of pairs of calls).
        guidance_scale: scale of classifier-free guidance. 1 means no guidance; 0 ignores the
            caption.
        guidance_first: first noise time, 0..1, at which guidance is used.
        guidance_last: last noise time, 0..1, at which guidance is used.
        guidance_rescale: share, 0..1, of the contrast from guidance that is taken back.
        autoguidance_scale: scale of guidance by a weaker version of the network. 1 means none.
        autoguidance_from: where the weaker version's weights come from (`trained.restore`).
        churn: amount of fresh noise in each step (`samplers.make_step`).
        threshold: method that keeps the estimates of x0 in -1..1: "dynamic", "static" or "none".
        threshold_percentile: percentile of the dynamic threshold, 0..100.
    """

    sampler: str
    steps: int
    guidance_scale: float
    guidance_first: float
    guidance_last: float
    guidance_rescale: float
    autoguidance_scale: float
    autoguidance_from: str
    churn: float
    threshold: str
    threshold_percentile: float


class WithWeaker(NamedTuple):
    """Parameters for sampling with autoguidance.

    Attributes:
        params: parameters of the network.
        weaker: parameters of the weaker version of the network.
    """

    params: Any
    weaker: Any


class SamplerFunctions(NamedTuple):
    """Holds the pure functions that sampling is made of, for `jax.jit`.

    `given` is what the network sees besides the noisy clip
    (`stunet.train.objectives.conditioning`).

    Attributes:
        first: maps (keys `[b]`, clean, level, start) to (the state before the first step, given).
            Each row draws its noise from its own key. `make_sampler` describes `clean`, `level` and
            `start`.
        estimate: maps (params, text, text_mask, given, x, i) to the estimate of x0 in step i, after
            guidance and thresholding. With autoguidance, `params` is a `WithWeaker`.
        update: maps (key, state, estimate of x0, i) to the state after step i.
    """

    first: Callable[..., tuple[samplers.SamplerState, Any]]
    estimate: Callable[..., Array]
    update: Callable[..., samplers.SamplerState]


def make_functions(
    denoiser: Denoiser, settings: SamplerSettings, t_start: float = 1.0
) -> SamplerFunctions:
    """Returns the functions that sample clips, beginning at noise time `t_start`."""
    schedule, conditioning = denoiser.schedule, denoiser.conditioning
    grid = dict(
        schedule=schedule,
        sampler=settings.sampler,
        steps=settings.steps,
        t_start=t_start,
        churn=settings.churn,
    )
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
        return samplers.init(noise, settings.sampler), given

    def estimate(params, text, text_mask, given, x, i):
        own, weaker = params if isinstance(params, WithWeaker) else (params, None)
        if weaker is None and settings.autoguidance_scale != 1:
            raise UserError(
                "autoguidance needs the weights of a weaker network; load the run with "
                "autoguidance_scale and autoguidance_from"
            )
        denoise = guided_denoiser(
            functools.partial(denoiser.predict, own),
            text,
            text_mask,
            *given,
            schedule=schedule,
            prediction=denoiser.prediction,
            guidance_scale=settings.guidance_scale,
            guidance_times=(settings.guidance_first, settings.guidance_last),
            guidance_rescale=settings.guidance_rescale,
            weaker=functools.partial(denoiser.predict, weaker),
            autoguidance_scale=settings.autoguidance_scale,
            threshold_mode=settings.threshold,
            percentile=settings.threshold_percentile,
        )
        return denoise(x, times[i])

    def update(key, state, x0, i):
        return samplers.make_step(lambda x, t: x0, key, **grid)(state, i)

    return SamplerFunctions(first, estimate, update)


def row_keys(seed: int | UInt32[Array, ""], rows: Int[Array | np.ndarray, "b"]) -> Array:
    """Returns random keys `[b]`, one for the noise of each row of a batch.

    Args:
        seed: seed of the noise.
        rows: number of each row. A row's key depends only on this number and on the seed.
    """
    key = jax.random.key(seed)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.asarray(rows))


def later_key(key: Array) -> Array:
    """Returns the key of the noise that sampling adds after the first noise.

    The key differs from that of the first noise of every row.

    Args:
        key: key of a row's first noise.
    """
    return jax.random.fold_in(key, _LATER)


def make_sampler(
    denoiser: Denoiser, settings: SamplerSettings, t_start: float = 1.0
) -> Callable[..., Iterator[Array]]:
    """Returns a function that samples clips and yields its estimate of them after each step.

    The function's signature is `sample(params, text, text_mask, seed, clean=None, level=0.0,
    first_row=0, start=None)`.

    The last estimate, float32 `[b, t, h, w, c]` in about -1..1, is the sample. The first noise of
    row i depends only on the seed and on `first_row` + i, not on the number of clips in the batch.
    Noise of later steps, by ancestral sampling or churn, also depends on the number of clips.

    A super-resolution network needs `clean`, in -1..1. For spatial super-resolution, `clean` holds
    low-resolution clips `[b, t, h / factor, w / factor, c]`. For temporal super-resolution, it
    holds keyframes `[b, (t - 1) / stride + 1, h, w, c]`. Before the first step, noise is added to
    `clean` at the augmentation level `level`, which is also an input of the network.

    For a network that is conditioned on masks, `clean` may be a pair: clips `[b, t, h, w, c]` and
    masks `[b, t, h, w, 1]`, which are 1 where pixels are given.

    Args:
        denoiser: the network and its conditioning.
        settings: sampler, steps and guidance.
        t_start: noise time, in (0, 1], at which sampling begins. All steps lie between `t_start`
            and 0. At 1, sampling begins with pure noise. Below 1, it begins with the clips `start`,
            in -1..1, to which the noise of time `t_start` is added (SDEdit).
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
    """Returns `loop(params, text, text_mask, seed, clean=None, first_row=0)`, which samples clips.

    The function is for `jax.jit`. It does all steps in one program, and returns only the estimate
    of the clips after the last step. `make_sampler` describes the arguments. The batch size may be
    symbolic.
    """
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
