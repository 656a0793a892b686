"""Noise schedules that are a list of 1000 steps, each with its share of fresh noise (beta).

DDPM (Ho et al., arXiv 2006.11239) and Stable Diffusion were trained at these steps alone. Step i
multiplies the variance of the signal by 1 - beta_i, so alpha^2 after it is the product of
1 - beta_0 .. 1 - beta_i. Here step i is at the noise time t = i / 999.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

STEPS = 1000

# Name -> (share, beta_start, beta_end) -> betas, where `share` runs evenly from 0 to 1.
BETAS = {
    # DDPM, section 4: diffusers calls it "linear".
    "linear_betas": lambda share, start, end: start + share * (end - start),
    # Stable Diffusion (Rombach et al., arXiv 2112.10752): betas linear in their square root.
    "scaled_linear": lambda share, start, end: (
        (np.sqrt(start) + share * (np.sqrt(end) - np.sqrt(start))) ** 2
    ),
}


class Steps(NamedTuple):
    """A schedule of discrete steps, made continuous between them.

    The amplitudes are alpha = cos u and sigma = sin u. Between two steps the angle u is linear in
    time. So the amplitudes are exact at the steps, and smooth where the signal vanishes.

    Attributes:
        name: a key of `BETAS`.
        beta_start: beta of the first step.
        beta_end: beta of the last step.
        zero_terminal_snr: True if the last step is to be pure noise (`rescaled`).
    """

    name: str
    beta_start: float
    beta_end: float
    zero_terminal_snr: bool

    def log_snr(self, t: Float[Array, "*n"]) -> Float32[Array, "*n"]:
        """Returns the log-SNR at times t in [0, 1]; -inf where there is no signal."""
        # The angle v = pi / 2 - u has a table of its own, as in `schedules.cosine`: the
        # difference would lose the digits of the smallest SNRs.
        t = t.astype(jnp.float32)
        u, v = (jnp.interp(t, *_float32(_times(), angle)) for angle in _angles(self))
        return 2 * (jnp.log(jnp.sin(v)) - jnp.log(jnp.sin(u)))

    def time(self, log_snr: Float[Array, "*n"]) -> Float32[Array, "*n"]:
        """Returns the time of a log-SNR; 0 or 1 for one that the schedule does not reach."""
        u = jnp.arctan(jnp.exp(-log_snr.astype(jnp.float32) / 2))
        return jnp.interp(u, *_float32(_angles(self)[0], _times()))


def alphas_cumprod(steps: Steps) -> Float[np.ndarray, "1000"]:
    """Returns alpha^2 at each step, float64."""
    share = np.linspace(0.0, 1.0, STEPS)
    alpha_squared = np.cumprod(1 - BETAS[steps.name](share, steps.beta_start, steps.beta_end))
    return rescaled(alpha_squared) if steps.zero_terminal_snr else alpha_squared


def rescaled(alpha_squared: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Shifts and scales alpha, so that the last one is 0 and the first one stays.

    Otherwise the last step keeps a little signal, such as the mean brightness, which sampling that
    starts from pure noise cannot give (Lin et al., arXiv 2305.08891, algorithm 1).

    Args:
        alpha_squared: alpha^2 at each step, falling.
    """
    alpha = np.sqrt(alpha_squared)
    return ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2


@functools.lru_cache
def _angles(steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angle u of each step, and pi / 2 - u, both float64."""
    alpha_squared = alphas_cumprod(steps)
    alpha, sigma = np.sqrt(alpha_squared), np.sqrt(1 - alpha_squared)
    return np.arctan2(sigma, alpha), np.arctan2(alpha, sigma)


def _times() -> np.ndarray:
    return np.linspace(0.0, 1.0, STEPS)


def _float32(*tables: np.ndarray) -> list[Array]:
    return [jnp.asarray(table, jnp.float32) for table in tables]
