"""Parametrisations: what the network predicts, and the clip or noise that its output implies.

The argument `log_snr` is a scalar, for one noise level in all clips, or has the leading axes of the
clips, such as `[b]` for clips `[b, t, h, w, c]`. Results are float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from stunet.diffusion.schedules import EDM_DATA_STD, alpha_sigma, edm_std
from stunet.errors import choose


class Prediction(NamedTuple):
    """Formulas for one parametrisation of the network's output, with x_t = alpha x0 + sigma noise.

    Attributes:
        target: (x0, noise, alpha, sigma) -> the output that the network is trained towards.
        to_x0: (output, x_t, alpha, sigma) -> the clean clip that the output implies.
        to_eps: (output, x_t, alpha, sigma) -> the noise that the output implies.
    """

    target: Callable
    to_x0: Callable
    to_eps: Callable


PREDICTIONS = {
    # The noise: Ho et al., DDPM (arXiv 2006.11239), eqs. 12 and 14.
    "eps": Prediction(
        target=lambda x0, noise, alpha, sigma: noise,
        to_x0=lambda output, x_t, alpha, sigma: (x_t - sigma * output) / alpha,
        to_eps=lambda output, x_t, alpha, sigma: output,
    ),
    # The velocity on the circle (alpha, sigma): Salimans and Ho (arXiv 2202.00512), appendix D.
    "v": Prediction(
        target=lambda x0, noise, alpha, sigma: alpha * noise - sigma * x0,
        to_x0=lambda output, x_t, alpha, sigma: alpha * x_t - sigma * output,
        to_eps=lambda output, x_t, alpha, sigma: sigma * x_t + alpha * output,
    ),
    # The clean clip itself.
    "x0": Prediction(
        target=lambda x0, noise, alpha, sigma: x0,
        to_x0=lambda output, x_t, alpha, sigma: output,
        to_eps=lambda output, x_t, alpha, sigma: (x_t - alpha * output) / sigma,
    ),
    # The velocity of flow matching, d/du of (1 - u) x0 + u noise: Lipman et al. (arXiv 2210.02747),
    # Liu et al. (arXiv 2209.03003).
    "flow": Prediction(
        target=lambda x0, noise, alpha, sigma: noise - x0,
        to_x0=lambda output, x_t, alpha, sigma: (x_t - sigma * output) / (alpha + sigma),
        to_eps=lambda output, x_t, alpha, sigma: (x_t + alpha * output) / (alpha + sigma),
    ),
    # The output F of EDM's preconditioned network: Karras et al. (arXiv 2206.00364), eq. 8. Its
    # sigma is the ratio sigma / alpha here. The target has unit variance at every noise level.
    "edm": Prediction(
        target=lambda x0, noise, alpha, sigma: (
            (sigma / EDM_DATA_STD * x0 - alpha * EDM_DATA_STD * noise) / edm_std(alpha, sigma)
        ),
        to_x0=lambda output, x_t, alpha, sigma: (
            EDM_DATA_STD
            * (alpha * EDM_DATA_STD / edm_std(alpha, sigma) * x_t + sigma * output)
            / edm_std(alpha, sigma)
        ),
        to_eps=lambda output, x_t, alpha, sigma: (
            (sigma / edm_std(alpha, sigma) * x_t - alpha * EDM_DATA_STD * output)
            / edm_std(alpha, sigma)
        ),
    ),
}


def add_noise(
    x0: Float[Array, "*shape"], noise: Float[Array, "*shape"], log_snr: Float[Array, "*lead"]
) -> Float32[Array, "*shape"]:
    """Returns x_t = alpha x0 + sigma noise, a draw from q(x_t | x0) (DDPM, eq. 4).

    Args:
        x0: clean clips, -1..1.
        noise: standard normal.
        log_snr: log-SNR of each clip.
    """
    alpha, sigma = _amplitudes(log_snr, x0.ndim)
    return alpha * x0.astype(jnp.float32) + sigma * noise.astype(jnp.float32)


def target(
    prediction: str,
    x0: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    log_snr: Float[Array, "*lead"],
) -> Float32[Array, "*shape"]:
    """Returns the output that the network is trained towards, for x_t = alpha x0 + sigma noise.

    The target is the noise for "eps", x0 for "x0", alpha noise - sigma x0 for "v", and noise - x0
    for "flow". For "edm" with the standard deviation d of the data (`schedules.EDM_DATA_STD`), it
    is (sigma x0 / d - alpha d noise) / sqrt(alpha^2 d^2 + sigma^2).

    Args:
        prediction: a key of `PREDICTIONS`.
        x0: clean clips, -1..1.
        noise: the noise in x_t.
        log_snr: log-SNR of each clip.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    formulas = choose(PREDICTIONS, prediction, "prediction")
    x0, noise = x0.astype(jnp.float32), noise.astype(jnp.float32)
    return formulas.target(x0, noise, *_amplitudes(log_snr, x0.ndim))


def to_x0(
    prediction: str,
    output: Float[Array, "*shape"],
    x_t: Float[Array, "*shape"],
    log_snr: Float[Array, "*lead"],
) -> Float32[Array, "*shape"]:
    """Returns the clean clip that the network's output implies.

    With x_t = alpha x0 + sigma noise, the clip is (x_t - sigma output) / alpha for "eps",
    alpha x_t - sigma output for "v", the output itself for "x0", and (x_t - sigma output) / (alpha
    + sigma) for "flow". With d = `schedules.EDM_DATA_STD` and D = sqrt(alpha^2 d^2 + sigma^2), it
    is d (alpha d x_t / D + sigma output) / D for "edm".

    For "eps", an error of the network is multiplied by sigma / alpha = exp(-log_snr / 2). At t = 1,
    x_t is almost pure noise. The default log-SNR there is -15, which gives a factor of about 1,800.
    So the estimate at t = 1 is finite, but worthless. Threshold the estimate while sampling
    (`guidance.threshold`), or use another prediction. Their errors are never magnified.

    Args:
        prediction: a key of `PREDICTIONS`.
        output: output of the network.
        x_t: the noisy clips that the network saw.
        log_snr: log-SNR of each clip.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    return _implied("to_x0", prediction, output, x_t, log_snr)


def to_eps(
    prediction: str,
    output: Float[Array, "*shape"],
    x_t: Float[Array, "*shape"],
    log_snr: Float[Array, "*lead"],
) -> Float32[Array, "*shape"]:
    """Returns the noise that the network's output implies.

    With x_t = alpha x0 + sigma noise, the noise is the output itself for "eps",
    sigma x_t + alpha output for "v", (x_t - alpha output) / sigma for "x0", and (x_t + alpha
    output) / (alpha + sigma) for "flow". With d and D of `to_x0`, it is (sigma x_t / D - alpha d
    output) / D for "edm".

    For "x0", an error of the network is multiplied by alpha / sigma, which is large near t = 0.

    Args:
        prediction: a key of `PREDICTIONS`.
        output: output of the network.
        x_t: the noisy clips that the network saw.
        log_snr: log-SNR of each clip.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    return _implied("to_eps", prediction, output, x_t, log_snr)


def _implied(formula: str, prediction: str, output: Array, x_t: Array, log_snr: Array) -> Array:
    formulas = choose(PREDICTIONS, prediction, "prediction")
    output, x_t = output.astype(jnp.float32), x_t.astype(jnp.float32)
    return getattr(formulas, formula)(output, x_t, *_amplitudes(log_snr, x_t.ndim))


def _amplitudes(log_snr: Array, ndim: int) -> tuple[Array, Array]:
    """Returns alpha and sigma, shaped to broadcast over clips of `ndim` axes."""
    return alpha_sigma(log_snr.reshape(log_snr.shape + (1,) * (ndim - log_snr.ndim)))
