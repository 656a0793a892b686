"""Makes the function `denoise` for samplers, with guidance and thresholding.

There are two kinds of guidance: by the text (classifier-free guidance), and by a weaker version of
the network (autoguidance).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from stunet.diffusion.prediction import PREDICTIONS, to_x0
from stunet.diffusion.schedules import NoiseSchedule
from stunet.errors import UserError, choose


def guide(
    cond_x0: Float[Array, "*shape"], uncond_x0: Float[Array, "*shape"], scale: float
) -> Float[Array, "*shape"]:
    """Returns the guided estimate: uncond_x0 + scale (cond_x0 - uncond_x0).

    This is classifier-free guidance. `scale` is 1 + w in Ho and Salimans (arXiv 2207.12598, eq. 6),
    and w in Imagen (arXiv 2205.11487, eq. 2). Both papers write the formula for eps. The formula
    holds for x0 too: x0 is affine in eps if x_t is fixed, and the weights `scale` and 1 - `scale`
    sum to 1.

    Args:
        cond_x0: estimate of x0 with the text.
        uncond_x0: estimate of x0 without the text.
        scale: 0 is unconditional, 1 is conditional, larger values follow the text more strongly.
    """
    return uncond_x0 + scale * (cond_x0 - uncond_x0)


def autoguide(
    x0: Float[Array, "*shape"],
    own: Float[Array, "*shape"],
    weaker: Float[Array, "*shape"],
    scale: float,
) -> Float[Array, "*shape"]:
    """Returns x0 + (scale - 1) (own - weaker): the estimate x0, moved away from a weaker network.

    This is autoguidance (Karras et al., arXiv 2406.02507). A network that was trained for a shorter
    time makes the same errors as the network itself, only larger ones. So the difference of their
    estimates points away from these errors. Without classifier-free guidance, x0 is `own`, and the
    result is the paper's D_bad + w (D_good - D_bad), with w = `scale`. With classifier-free
    guidance, x0 is the estimate that `guide` returns, and the two kinds of guidance are added.

    Args:
        x0: estimates to move.
        own: estimates of the network, with the text and without guidance.
        weaker: estimates of the weaker network from the same noisy clips and text.
        scale: 1 changes nothing, larger values move further.
    """
    return x0 + (scale - 1) * (own - weaker)


def rescale(
    guided: Float[Array, "b ..."], cond_x0: Float[Array, "b ..."], share: float
) -> Float[Array, "b ..."]:
    """Brings the contrast of guided estimates back towards that of estimates without guidance.

    Guidance with a large scale raises the contrast of a clip. Multiplying the clip by the ratio of
    the standard deviations std(cond_x0) / std(guided) gives it the contrast that it has without
    guidance (Lin et al., arXiv 2305.08891, section 3.4). The result is this clip times `share` plus
    the guided one times 1 - `share`.

    Args:
        guided: guided estimates of x0.
        cond_x0: estimates of x0 with the text and without guidance.
        share: 0 changes nothing, 1 restores the standard deviation of each clip.
    """
    axes = tuple(range(1, guided.ndim))
    deviations = (jnp.std(x, axis=axes, keepdims=True) for x in (cond_x0, guided))
    ratio = jnp.divide(*deviations)
    # A clip of one colour has no contrast to restore.
    ratio = jnp.where(jnp.isfinite(ratio), ratio, 1.0)
    return guided * (share * ratio + 1 - share)


def _dynamic(x0: Array, percentile: float) -> Array:
    # All frames of a clip share one s; otherwise brightness would flicker.
    magnitudes = jnp.abs(x0).reshape(x0.shape[0], -1)
    s = jnp.maximum(jnp.percentile(magnitudes, percentile, axis=1), 1.0)
    s = s.reshape(s.shape + (1,) * (x0.ndim - 1))
    return jnp.clip(x0, -s, s) / s


THRESHOLDS = {
    "dynamic": _dynamic,
    "static": lambda x0, percentile: jnp.clip(x0, -1.0, 1.0),
    "none": lambda x0, percentile: x0,
}


def threshold(
    x0: Float[Array, "b ..."], mode: str = "dynamic", percentile: float = 99.5
) -> Float[Array, "b ..."]:
    """Brings estimates that guidance has pushed out of -1..1 back into that range.

    The modes are those of Imagen (arXiv 2205.11487), section 2.3:
        dynamic: in each clip, s is the larger of 1 and a percentile of |x0|; values are clipped to
            [-s, s] and divided by s. So large guidance scales do not saturate the picture. This
            mode has to sort all values of a clip.
        static: values are clipped to [-1, 1].
        none: values stay as they are, even outside -1..1.

    Args:
        x0: estimates, one clip per leading index.
        mode: a key of `THRESHOLDS`.
        percentile: percentile of the dynamic mode, in (0, 100]; 100 takes the largest |x0|.

    Raises:
        UserError: `mode` is unknown or `percentile` is out of range.
    """
    apply = choose(THRESHOLDS, mode, "threshold")
    if not 0 < percentile <= 100:
        raise UserError(f"threshold percentile is {percentile}; it must be in (0, 100]")
    return apply(x0, percentile)


def guided_denoiser(
    predict: Callable[..., Array],
    text: Float[Array, "b l d"],
    text_mask: Bool[Array, "b l"],
    *shared: Float[Array, "b ..."],
    schedule: NoiseSchedule,
    prediction: str,
    guidance_scale: float,
    guidance_times: tuple[float, float] = (0.0, 1.0),
    guidance_rescale: float = 0.0,
    weaker: Callable[..., Array] | None = None,
    autoguidance_scale: float = 1.0,
    threshold_mode: str = "dynamic",
    percentile: float = 99.5,
) -> Callable[[Array, Array], Array]:
    """Turns the network into the function `denoise(x_t, t) -> x0` that `samplers.sample` takes.

    The network runs once on a batch of 2b, which holds each clip with and without its text. With
    autoguidance, the weaker network also runs, on a batch of b. Without
    text, the token states are zero and the mask is False throughout, as for a caption that is
    dropped in training. Clip i is in row 2i (with text) and in row 2i + 1 (without). So a batch
    that is sharded over chips doubles in place, and no clip moves to another chip.

    Args:
        predict: (x_t [n, ...], time [n], text [n, l, d], text_mask [n, l], *shared) -> output
            [n, ...], with n = b or 2b.
        text: token states of each clip's prompt, l tokens with d features.
        text_mask: True on tokens, False on padding.
        shared: further inputs `[b, ...]`, the same with and without text, such as a masked
            conditioning clip.
        schedule: schedule that the network was trained with.
        prediction: parametrisation of the output of `predict`, a key of `PREDICTIONS`.
        guidance_scale: see `guide`. With 1 or 0 the network runs on a batch of b, only with text
            (1) or only without text (0). With 0, the weaker network has no text either.
        guidance_times: first and last noise time at which both scales hold. At other times the
            network runs only with text, on a batch of b (Kynkaanniemi et al., arXiv 2404.07724).
            Without guidance, these times have no effect.
        guidance_rescale: `share` of `rescale`, 0..1. It is applied to the sum of both kinds of
            guidance.
        weaker: a weaker version of `predict`, with the same arguments and parametrisation. It is
            not called if `autoguidance_scale` is 1.
        autoguidance_scale: `scale` of `autoguide`.
        threshold_mode: see `threshold`.
        percentile: see `threshold`.

    Returns:
        `denoise`, for x_t `[b, ...]` and a float scalar t. With `guidance_times` from 0 to 1, t
        may also hold the time of each clip, `[b]`.

    Raises:
        UserError: `prediction` or `threshold_mode` is unknown, or `percentile` is out of range, or
            `guidance_times` are not in order.
    """
    choose(PREDICTIONS, prediction, "prediction")
    first, last = guidance_times
    if not 0 <= first <= last <= 1:
        raise UserError(
            f"guidance times are {first:g} to {last:g}; they must rise, and lie between 0 and 1"
        )
    # Raises the errors of `threshold` here instead of while `denoise` is traced.
    threshold(jnp.zeros((1, 1)), threshold_mode, percentile)
    null = jnp.zeros_like(text), jnp.zeros_like(text_mask)

    prompt = (text, text_mask) if guidance_scale else null
    guides_by_text = guidance_scale not in (0, 1)

    def estimate(predict, x_t, t, text, mask, *shared):
        time = jnp.broadcast_to(t, x_t.shape[:1]).astype(jnp.float32)
        return to_x0(prediction, predict(x_t, time, text, mask, *shared), x_t, schedule(time))

    def interleave(a, b):
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    def twice(a):
        return interleave(a, a)

    def plain(x_t, t):
        return estimate(predict, x_t, t, *prompt, *shared)

    def guided_by_text(x_t, t):
        prompts = [interleave(*pair) for pair in zip(prompt, null, strict=True)]
        times = twice(jnp.broadcast_to(t, x_t.shape[:1]))
        both = estimate(predict, twice(x_t), times, *prompts, *map(twice, shared))
        pairs = both.reshape(-1, 2, *both.shape[1:])
        return pairs[:, 0], guide(pairs[:, 0], pairs[:, 1], guidance_scale)

    def guided(x_t, t):
        own, x0 = guided_by_text(x_t, t) if guides_by_text else (plain(x_t, t),) * 2
        if autoguidance_scale != 1:
            bad = estimate(weaker, x_t, t, *prompt, *shared)
            x0 = autoguide(x0, own, bad, autoguidance_scale)
        return rescale(x0, own, guidance_rescale) if guidance_rescale else x0

    def denoise(x_t: Float[Array, "b ..."], t: Float[Array, "*b"]) -> Float32[Array, "b ..."]:
        if not guides_by_text and autoguidance_scale == 1:
            x0 = plain(x_t, t)
        elif guidance_times == (0.0, 1.0):
            x0 = guided(x_t, t)
        else:
            within = (first <= t) & (t <= last)
            x0 = jax.lax.cond(within, guided, plain, x_t, t)
        return threshold(x0, threshold_mode, percentile)

    return denoise
