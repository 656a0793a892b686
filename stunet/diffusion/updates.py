"""Updates of the samplers: each turns the clip at time t into the clip at an earlier time s.

With lambda = log_snr / 2, the step's length is h = lambda_s - lambda_t > 0. `Step` holds everything
that an update depends on. Every update is affine in the estimate of x0, and treats every pixel
alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from stunet.diffusion.schedules import alpha_sigma


class Step(NamedTuple):
    """Inputs of a sampler's update, for one step from time t to time s.

    Attributes:
        x: the clip at time t.
        x0: the denoiser's estimate of the clean clip, made from `x`.
        x0_before: the estimate that the previous step used; meaningless in the first step.
        log_snr_before: log-SNR at which the previous step started; -inf in the first step.
        log_snr_t: log-SNR at time t.
        log_snr_s: log-SNR at time s; +inf in the last step.
        rng: random key of this step alone.
        i: number of the step, from 0.
        levels: log-SNR of every call of the denoiser, with -inf before the first and +inf after the
            last: call i is at `levels[i + 1]`.
        kept: arrays that the sampler kept from the steps before (`samplers.Sampler.keep`).
    """

    x: Array
    x0: Array
    x0_before: Array
    log_snr_before: Array
    log_snr_t: Array
    log_snr_s: Array
    rng: Array
    i: Array | int
    levels: Array
    kept: tuple[Array, ...] = ()


def ddim(step: Step) -> Array:
    """Takes a step of deterministic DDIM, which is of first order.

    x_s = alpha_s x0 + sigma_s eps, with the implied noise eps = (x_t - alpha_t x0) / sigma_t
    (Song et al., arXiv 2010.02502, eq. 12 with eta = 0).
    """
    alpha_t, sigma_t = alpha_sigma(step.log_snr_t)
    alpha_s, sigma_s = alpha_sigma(step.log_snr_s)
    return alpha_s * step.x0 + sigma_s * (step.x - alpha_t * step.x0) / sigma_t


def ancestral(step: Step) -> Array:
    """Draws from the posterior q(x_s | x_t, x0) (Ho et al., arXiv 2006.11239, eqs. 6 and 7).

    In the continuous-time form of VDM (arXiv 2107.00630), with c = 1 - SNR_t / SNR_s,
        mean = (alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t + alpha_s c x0,  variance = sigma_s^2 c
    """
    alpha_t, sigma_t = alpha_sigma(step.log_snr_t)
    alpha_s, sigma_s = alpha_sigma(step.log_snr_s)
    c = -jnp.expm1(step.log_snr_t - step.log_snr_s)
    mean = (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2 * step.x + alpha_s * c * step.x0
    noise = jax.random.normal(step.rng, step.x.shape, step.x.dtype)
    return mean + sigma_s * jnp.sqrt(c) * noise


def dpmpp_2m(step: Step) -> Array:
    """Takes a step of DPM-Solver++(2M), which is deterministic and of second order.

    x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D (Lu et al., arXiv 2211.01095, algorithm
    2), with the step's length h = (log_snr_s - log_snr_t) / 2. This is DDIM's step with x0
    replaced by its linear extrapolation to the middle of the step,
        D = x0 + h / (2 h_before) (x0 - x0_before)
    where h_before is the length of the previous step. The first step has no previous estimate to
    extrapolate from, and the last step has infinite h. So both are steps of DDIM.
    """
    # Differences of log-SNR are twice those of lambda; only their ratio counts.
    h = step.log_snr_s - step.log_snr_t
    h_before = step.log_snr_t - step.log_snr_before
    weight = jnp.where(jnp.isfinite(h), h / (2 * h_before), 0.0)
    return ddim(step._replace(x0=step.x0 + weight * (step.x0 - step.x0_before)))


def heun(step: Step) -> Array:
    """Takes half a step of Heun's method, which is of second order (Karras et al., arXiv
    2206.00364, algorithm 1).

    Even steps predict the clip at time s by Euler's method, which is `ddim`. Odd steps correct the
    prediction, with the denoiser's estimate at time s. In the coordinates of flow matching, y =
    x / (alpha + sigma) and u = sigma / (alpha + sigma), the flow is dy / du = (y - x0) / u. Heun's
    method takes the mean of this slope at the two ends of the step,
        y_s = y_t + (u_s - u_t) / 2 ((y_t - x0_t) / u_t + (y_s - x0_s) / u_s)
    The last step has no noise to go to, so it returns the estimate of x0.
    """

    def on_line(x, log_snr):
        alpha, sigma = alpha_sigma(log_snr)
        return x / (alpha + sigma), sigma / (alpha + sigma)

    # In the first step there is none before. Its values are finite, and not used.
    y_before, u_before = on_line(step.kept[0], step.log_snr_before)
    y, u = on_line(step.x, step.log_snr_t)
    slope = ((y_before - step.x0_before) / u_before + (y - step.x0) / u) / 2
    alpha, sigma = alpha_sigma(step.log_snr_t)
    corrected = (alpha + sigma) * (y_before + (u - u_before) * slope)
    predicts = (step.i % 2 == 0) | jnp.isinf(step.log_snr_s)
    return jnp.where(predicts, ddim(step), corrected)


def unipc(step: Step) -> Array:
    """Takes a step of UniPC of second order (Zhao et al., arXiv 2302.04867, algorithms 7 and 8).

    The step first corrects the clip at time t, with the estimate that was made from it
    (`corrected_by_unipc`). From the corrected clip it predicts the clip at time s, as `dpmpp_2m`
    does, which is the paper's predictor with B(h) = exp(h) - 1. The corrector needs no call of the
    denoiser. It raises the order of the method to three.
    """
    return dpmpp_2m(step._replace(x=corrected_by_unipc(step)))


def corrected_by_unipc(step: Step) -> Array:
    """Returns the clip at time t, corrected with the estimate that was made from it.

    With the clip x' at the call before, and h = lambda_t - lambda', the exact solution is
        x_t = (sigma_t / sigma') x' + sigma_t integral of exp(lambda) x0(lambda) d lambda
    from lambda' to lambda_t. Here x0(lambda) is the polynomial through the estimates of this call
    and of the two calls before, as in UniC-2. The second step knows only one call before, and takes
    the straight line through two estimates. The first step corrects nothing.
    """
    x_before, x0_earlier = step.kept
    # Half the differences of the log-SNR. Values of the first steps, which are infinite, are
    # replaced by 1 and not used.
    earlier = step.levels[jnp.maximum(step.i - 1, 0)]
    h = (step.log_snr_t - step.log_snr_before) / 2
    h_before = (step.log_snr_before - earlier) / 2
    first, second = jnp.isinf(step.log_snr_before), jnp.isinf(earlier)
    h = jnp.where(first, 1.0, h)
    h_before = jnp.where(first | second, 1.0, h_before)
    # Integrals of exp(-r) (1 - r / h)^k over r from 0 to h, for k = 0, 1, 2. Here r is the distance
    # lambda_t - lambda, so alpha_t exp(-r) is sigma_t exp(lambda).
    whole = -jnp.expm1(-h)
    linear = 1 - whole / h
    square = 1 - 2 * linear / h
    change = step.x0 - step.x0_before
    # The bend of the polynomial: it is 0 at both ends of the step, and exact at the call before.
    bend = change / h - (step.x0_before - x0_earlier) / h_before
    bend = jnp.where(second, 0.0, bend / (h + h_before))
    integral = whole * step.x0_before + linear * change + (square - linear) * h**2 * bend
    alpha, sigma = alpha_sigma(step.log_snr_t)
    before = jnp.where(first, step.log_snr_t, step.log_snr_before)
    _, sigma_before = alpha_sigma(before)
    return jnp.where(first, step.x, sigma / sigma_before * x_before + alpha * integral)


def add_fresh_noise(x: Array, log_snr_from: Array, log_snr_to: Array, rng: Array) -> Array:
    """Brings a clip to a noisier level by fresh noise (Karras et al., arXiv 2206.00364, algorithm
    2, lines 4 to 6).

    Args:
        x: the clip at `log_snr_from`.
        log_snr_from: log-SNR of the clip.
        log_snr_to: log-SNR of the result, at most `log_snr_from`. The clip stays as it is if this
            is +inf.
        rng: random key of the noise.
    """
    last = jnp.isinf(log_snr_to)
    start, end = (jnp.where(last, 0.0, level) for level in (log_snr_from, log_snr_to))
    (alpha_start, _), (alpha_end, sigma_end) = alpha_sigma(start), alpha_sigma(end)
    std = sigma_end * jnp.sqrt(-jnp.expm1(jnp.minimum(end - start, 0.0)))
    noise = jax.random.normal(rng, x.shape, x.dtype)
    return jnp.where(last, x, alpha_end / alpha_start * x + std * noise)
