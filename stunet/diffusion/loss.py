"""The training loss of a clip, and the times at which to train."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from stunet.diffusion.prediction import PREDICTIONS, add_noise, target
from stunet.diffusion.schedules import NoiseSchedule
from stunet.errors import choose


def uniform(
    log_snr: Float[Array, "*n"], prediction: str, gamma: float = 5.0
) -> Float32[Array, "*n"]:
    """1 everywhere, on the network's own target (DDPM's "simple" loss, eq. 14)."""
    del prediction, gamma
    return jnp.ones(log_snr.shape, jnp.float32)


# The mean squared error of x0 is that of the output times sigma^2 / alpha^2 for eps, sigma^2 for v.
_X0_ERROR = {
    "eps": lambda log_snr: jnp.exp(-log_snr),
    "v": lambda log_snr: jax.nn.sigmoid(-log_snr),
    "x0": lambda log_snr: jnp.ones_like(log_snr),
}


def min_snr(
    log_snr: Float[Array, "*n"], prediction: str, gamma: float = 5.0
) -> Float32[Array, "*n"]:
    """Min-SNR-gamma (Hang et al., arXiv 2303.09556, section 3.4).

    The loss is min(SNR, gamma) ||x0_hat - x0||^2 whatever the network predicts, so the weight on
    its own target is, by the change of variables,
        x0: min(SNR, gamma)    eps: min(SNR, gamma) / SNR    v: min(SNR, gamma) / (SNR + 1)

    Args:
        log_snr: noise levels.
        prediction: what the network predicts, a key of `PREDICTIONS`.
        gamma: the SNR above which cleaner clips stop counting for more.

    Raises:
        UserError: `prediction` is not a key of `PREDICTIONS`.
    """
    log_snr = log_snr.astype(jnp.float32)
    x0_error = choose(_X0_ERROR, prediction, "prediction")(log_snr)
    return jnp.minimum(jnp.exp(log_snr), gamma) * x0_error


WEIGHTINGS = {"uniform": uniform, "min_snr": min_snr}


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
) -> Float32[Array, "b"]:
    """Weighted mean squared error of each clip, over all its frames, pixels and channels.

    One noise level covers the whole clip: its frames are denoised together.

    Args:
        predict: the network, (x_t [b, t, h, w, c], time [b]) -> output [b, t, h, w, c], in any
            float dtype; text and parameters are bound by the caller.
        x0: clean clips, -1..1.
        t: times in [0, 1].
        noise: standard normal.
        schedule: log-SNR of t.
        prediction: a key of `PREDICTIONS`.
        weighting: a key of `WEIGHTINGS`.
        min_snr_gamma: gamma of `min_snr`.

    Returns:
        The loss of each clip; the caller averages.

    Raises:
        UserError: unknown prediction or weighting.
    """
    choose(PREDICTIONS, prediction, "prediction")
    weight = choose(WEIGHTINGS, weighting, "loss weighting")
    log_snr = schedule(t)
    output = predict(add_noise(x0, noise, log_snr), t)
    error = output.astype(jnp.float32) - target(prediction, x0, noise, log_snr)
    mse = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
    return weight(log_snr, prediction, min_snr_gamma) * mse


def stratified_times(rng: PRNGKeyArray, batch: int) -> Float32[Array, "{batch}"]:
    """Times t_i = (u + i / batch) mod 1 with a single u ~ U[0, 1).

    The low-discrepancy times of Kingma et al. (VDM, arXiv 2107.00630, appendix). Each t_i alone
    is uniform, so the loss stays unbiased, but together they cover [0, 1] evenly, which lowers its
    variance. Their order is not random: that of the clips in a batch must be.
    """
    u = jax.random.uniform(rng, dtype=jnp.float32)
    return jnp.mod(u + jnp.arange(batch, dtype=jnp.float32) / batch, 1.0)
