"""Computes the training loss of each clip."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from stunet import extensions
from stunet.diffusion.prediction import PREDICTIONS, add_noise, target
from stunet.diffusion.schedules import EDM_DATA_STD, NoiseSchedule
from stunet.errors import choose


def uniform(log_snr: Float[Array, "*n"]) -> Float32[Array, "*n"]:
    """Returns weight 1 at every noise level, as in DDPM's "simple" loss (arXiv 2006.11239, eq. 14).

    The squared error of the network's output gets this weight, whatever the output is. For "flow",
    this is the loss of flow matching (arXiv 2210.02747, eq. 23). For "edm", it is the loss of EDM
    (arXiv 2206.00364, table 1), whose weight for the error of x0 cancels the scale of the output.
    """
    return jnp.ones(log_snr.shape, jnp.float32)


# For each prediction, the squared error of x0 divided by that of the network's output:
# sigma^2 / alpha^2 for eps, sigma^2 for v, 1 for x0, (sigma / (alpha + sigma))^2 for flow, and
# d^2 sigma^2 / (alpha^2 d^2 + sigma^2) for edm.
_X0_ERROR = {
    "eps": lambda log_snr: jnp.exp(-log_snr),
    "v": lambda log_snr: jax.nn.sigmoid(-log_snr),
    "x0": lambda log_snr: jnp.ones_like(log_snr),
    "flow": lambda log_snr: jnp.square(jax.nn.sigmoid(-log_snr / 2)),
    "edm": lambda log_snr: EDM_DATA_STD**2 * jax.nn.sigmoid(-log_snr - 2 * math.log(EDM_DATA_STD)),
}


def min_snr(
    log_snr: Float[Array, "*n"], prediction: str, gamma: float = 5.0
) -> Float32[Array, "*n"]:
    """Returns the weights of Min-SNR-gamma (Hang et al., arXiv 2303.09556, section 3.4).

    The loss is min(SNR, gamma) ||x0_hat - x0||^2, whatever the network predicts. This function
    returns the equivalent weight of the squared error of the network's output:
        x0: min(SNR, gamma)    eps: min(SNR, gamma) / SNR    v: min(SNR, gamma) / (SNR + 1)
        flow: min(SNR, gamma) / (sqrt(SNR) + 1)^2    edm: min(SNR, gamma) / (SNR + 1 / d^2)
    with the standard deviation d = `schedules.EDM_DATA_STD` of the data.

    Args:
        log_snr: log-SNR of each clip.
        prediction: parametrisation of the network's output, a key of `PREDICTIONS`.
        gamma: largest weight of ||x0_hat - x0||^2. If the SNR is smaller, the weight is the SNR.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    log_snr = log_snr.astype(jnp.float32)
    x0_error = choose(_X0_ERROR, prediction, "prediction")(log_snr)
    return jnp.minimum(jnp.exp(log_snr), gamma) * x0_error


def sigmoid(
    log_snr: Float[Array, "*n"], prediction: str, bias: float, slope: Float[Array, "*n"]
) -> Float32[Array, "*n"]:
    """Returns the weights of the sigmoid loss of Hoogeboom et al. (arXiv 2410.19324).

    The loss is -d log_snr / dt sigmoid(bias - log_snr) ||eps_hat - eps||^2. In terms of x0, this is
    -d log_snr / dt exp(bias) sigmoid(log_snr - bias) ||x0_hat - x0||^2. With uniform times, the
    factor -d log_snr / dt makes the expected loss an integral over the log-SNR (Kingma and Gao,
    arXiv 2303.00848, section 2). So every schedule with the same bounds has the same expected loss.
    Some programs leave this factor out; their loss differs on every schedule that is not linear.

    Args:
        log_snr: log-SNR of each clip.
        prediction: parametrisation of the network's output, a key of `PREDICTIONS`.
        bias: log-SNR at which the weight of the error of eps is half its largest value.
        slope: the derivative -d log_snr / dt of each clip.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    log_snr = log_snr.astype(jnp.float32)
    x0_error = choose(_X0_ERROR, prediction, "prediction")(log_snr)
    weight = slope * math.exp(bias) * jax.nn.sigmoid(log_snr - bias) * x0_error
    # Where there is no signal, the slope is infinite and the limit of the product is 0.
    return jnp.where(log_snr == -jnp.inf, 0.0, weight)


class Weighting(NamedTuple):
    """The settings from which the weight of each noise level is computed.

    Attributes:
        schedule: noise schedule.
        prediction: a key of `PREDICTIONS`.
        gamma: see `min_snr`.
        bias: see `sigmoid`.
    """

    schedule: NoiseSchedule
    prediction: str
    gamma: float
    bias: float


def _slope(schedule: NoiseSchedule, t: Array) -> Array:
    return -jax.jvp(schedule, (t,), (jnp.ones_like(t),))[1]


# Name -> function (t, log_snr, Weighting) -> weight of the squared error of the network's output.
WEIGHTINGS = {
    "uniform": lambda t, log_snr, of: uniform(log_snr),
    "min_snr": lambda t, log_snr, of: min_snr(log_snr, of.prediction, of.gamma),
    "sigmoid": lambda t, log_snr, of: sigmoid(
        log_snr, of.prediction, of.bias, _slope(of.schedule, t)
    ),
}


def clip_loss(
    predict: Callable[[Array, Array], Array],
    x0: Float[Array, "b t h w c"],
    t: Float[Array, "b"],
    noise: Float[Array, "b t h w c"],
    *,
    schedule: NoiseSchedule,
    prediction: str,
    weighting: str,
    min_snr_gamma: float = 5.0,
    sigmoid_log_snr: float = 0.0,
) -> Float32[Array, "b"]:
    """Returns the weighted mean squared error of each clip.

    The mean goes over all frames, pixels and channels of the clip. All frames share one noise
    level, because they are denoised together.

    Args:
        predict: the network, (x_t [b, t, h, w, c], time [b]) -> output [b, t, h, w, c], in any
            float dtype. The caller binds text and parameters.
        x0: clean clips, -1..1.
        t: times in [0, 1].
        noise: standard normal.
        schedule: noise schedule.
        prediction: parametrisation of the network's output, a key of `PREDICTIONS`.
        weighting: a key of `WEIGHTINGS`.
        min_snr_gamma: gamma of `min_snr`.
        sigmoid_log_snr: bias of `sigmoid`.

    Returns:
        The loss of each clip; the caller averages over the batch.

    Raises:
        UserError: `prediction` or `weighting` is unknown.
    """
    choose(PREDICTIONS, prediction, "prediction")
    weight = extensions.find(WEIGHTINGS, weighting, extensions.LossWeighting)
    log_snr = schedule(t)
    output = predict(add_noise(x0, noise, log_snr), t)
    error = output.astype(jnp.float32) - target(prediction, x0, noise, log_snr)
    mse = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
    return weight(t, log_snr, Weighting(schedule, prediction, min_snr_gamma, sigmoid_log_snr)) * mse
