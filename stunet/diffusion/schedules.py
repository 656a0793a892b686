"""Noise schedules: the log signal-to-noise ratio as a function of time.

The ratio falls with time. At t = 0 a clip is almost clean, and at t = 1 it is almost pure noise.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from stunet import extensions
from stunet.diffusion.betas import BETAS, Steps
from stunet.errors import UserError, choose


class Curve(NamedTuple):
    """The log-SNR as a falling function of time, and the inverse of that function.

    Attributes:
        log_snr: (t, log_snr_min, log_snr_max) -> log-SNR.
        time: (log_snr, log_snr_min, log_snr_max) -> t.
    """

    log_snr: Callable
    time: Callable


def cosine(
    t: Float[Array, "*n"], log_snr_min: float = -15.0, log_snr_max: float = 15.0
) -> Float32[Array, "*n"]:
    """Computes the cosine schedule: log_snr(t) = -2 log tan(pi t / 2), so alpha = cos(pi t / 2).

    This formula is infinite at t = 0 and t = 1. So the angle u = pi t / 2 is replaced by an angle
    that runs linearly from u_0 to pi / 2 - v_0 instead of from 0 to pi / 2. Here
    u_0 = atan(exp(-log_snr_max / 2)) and v_0 = atan(exp(log_snr_min / 2)). Hoogeboom et al. do the
    same ("simple diffusion", arXiv 2301.11093, appendix). The result is smooth everywhere. It
    reaches log_snr_max only at t = 0 and log_snr_min only at t = 1.

    Args:
        t: times in [0, 1].
        log_snr_min: log-SNR at t = 1.
        log_snr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at each time.
    """
    t = t.astype(jnp.float32)
    u_0, v_0, span = _cosine_angles(log_snr_min, log_snr_max)
    # u is the angle from the clean end, v = pi / 2 - u the one from the noisy end. Each is a sum of
    # its own: tan(u) near pi / 2 would lose four digits of the smallest SNRs.
    u = u_0 + t * span
    v = v_0 + (1 - t) * span
    return 2 * (jnp.log(jnp.sin(v)) - jnp.log(jnp.sin(u)))


def _cosine_time(log_snr: Array, log_snr_min: float, log_snr_max: float) -> Array:
    u_0, _, span = _cosine_angles(log_snr_min, log_snr_max)
    return (jnp.arctan(jnp.exp(-log_snr / 2)) - u_0) / span


def _cosine_angles(log_snr_min: float, log_snr_max: float) -> tuple[float, float, float]:
    """Returns u_0, v_0 and pi / 2 - u_0 - v_0, with the angles u_0 and v_0 of `cosine`."""
    u_0 = math.atan(math.exp(-log_snr_max / 2))
    v_0 = math.atan(math.exp(log_snr_min / 2))
    return u_0, v_0, math.pi / 2 - u_0 - v_0


def linear(
    t: Float[Array, "*n"], log_snr_min: float = -15.0, log_snr_max: float = 15.0
) -> Float32[Array, "*n"]:
    """Computes a log-SNR that is linear in t: every halving of the SNR takes the same time.

    This is the simplest schedule in the log-SNR form of Kingma et al. (VDM, arXiv 2107.00630,
    section 3). It is not DDPM's schedule of linear betas.

    Args:
        t: times in [0, 1].
        log_snr_min: log-SNR at t = 1.
        log_snr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at each time.
    """
    t = t.astype(jnp.float32)
    return log_snr_max * (1 - t) + log_snr_min * t


def _linear_time(log_snr: Array, log_snr_min: float, log_snr_max: float) -> Array:
    return (log_snr_max - log_snr) / (log_snr_max - log_snr_min)


# The angle at which Improved DDPM's schedule starts, without noise: pi / 2 * s / (1 + s) with
# s = 0.008.
IDDPM_ANGLE = math.pi / 2 * 0.008 / 1.008


def iddpm(
    t: Float[Array, "*n"], log_snr_min: float = -15.0, log_snr_max: float = 15.0
) -> Float32[Array, "*n"]:
    """Computes Improved DDPM's cosine schedule, with which DeepFloyd IF was trained.

    The schedule is eq. 17 of Nichol & Dhariwal (arXiv 2102.09672); diffusers calls it
    "squaredcos_cap_v2". It has alpha^2 = cos^2 u / cos^2 u_0, with a constant u_0 (`IDDPM_ANGLE`)
    and an angle u that is linear in time. As in `cosine`, u starts where the log-SNR is log_snr_max
    and ends where it is log_snr_min.

    Args:
        t: times in [0, 1].
        log_snr_min: log-SNR at t = 1.
        log_snr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at each time.
    """
    t = t.astype(jnp.float32)
    u_0, u_1, v_1 = _iddpm_angles(log_snr_min, log_snr_max)
    # sigma^2 cos^2 u_0 is sin^2 u - sin^2 u_0 = sin(u - u_0) sin(u + u_0).
    above = (u_0 - IDDPM_ANGLE) + t * (u_1 - u_0)
    v = v_1 + (1 - t) * (u_1 - u_0)
    noise = jnp.log(jnp.sin(above)) + jnp.log(jnp.sin(above + 2 * IDDPM_ANGLE))
    return 2 * jnp.log(jnp.sin(v)) - noise


def _iddpm_time(log_snr: Array, log_snr_min: float, log_snr_max: float) -> Array:
    u_0, u_1, _ = _iddpm_angles(log_snr_min, log_snr_max)
    cosine, sine = math.cos(IDDPM_ANGLE), math.sin(IDDPM_ANGLE)
    alpha, sigma = jax.nn.sigmoid(log_snr), jax.nn.sigmoid(-log_snr)
    u = jnp.arctan2(jnp.sqrt(sine**2 + cosine**2 * sigma), cosine * jnp.sqrt(alpha))
    return (u - u_0) / (u_1 - u_0)


def _iddpm_angles(log_snr_min: float, log_snr_max: float) -> tuple[float, float, float]:
    """Returns u(0), u(1) and pi / 2 - u(1), where u(t) is the angle u of `iddpm` at time t."""
    cosine, sine = math.cos(IDDPM_ANGLE), math.sin(IDDPM_ANGLE)

    def legs(log_snr):
        alpha, sigma = 1 / (1 + math.exp(-log_snr)), 1 / (1 + math.exp(log_snr))
        return math.sqrt(sine**2 + cosine**2 * sigma), cosine * math.sqrt(alpha)

    first, last = legs(log_snr_max), legs(log_snr_min)
    return math.atan2(*first), math.atan2(*last), math.atan2(*reversed(last))


def flow(
    t: Float[Array, "*n"], log_snr_min: float = -15.0, log_snr_max: float = 15.0
) -> Float32[Array, "*n"]:
    """Computes flow matching's schedule, whose path from clip to noise is a straight line.

    The noisy clip is (1 - u) x0 + u noise (Lipman et al., arXiv 2210.02747; rectified flow, Liu et
    al., arXiv 2209.03003). So the log-SNR is 2 log((1 - u) / u). It is infinite at u = 0 and u = 1,
    so u runs linearly in time from u_0 = sigmoid(-log_snr_max / 2) to u_1 = sigmoid(-log_snr_min /
    2) instead of from 0 to 1.

    A `NoiseSchedule.shift` of 1 / m gives the shifted times m u / (1 + (m - 1) u) of Stable
    Diffusion 3 (Esser et al., arXiv 2403.03206, eq. 23).

    Args:
        t: times in [0, 1].
        log_snr_min: log-SNR at t = 1.
        log_snr_max: log-SNR at t = 0.

    Returns:
        The log-SNR at each time.
    """
    t = t.astype(jnp.float32)
    u_0, v_1, span = _flow_ends(log_snr_min, log_snr_max)
    # Not as 1 - u, which would lose the digits of the smallest SNRs.
    return 2 * (jnp.log(v_1 + (1 - t) * span) - jnp.log(u_0 + t * span))


def _flow_time(log_snr: Array, log_snr_min: float, log_snr_max: float) -> Array:
    u_0, _, span = _flow_ends(log_snr_min, log_snr_max)
    return (jax.nn.sigmoid(-log_snr / 2) - u_0) / span


def _flow_ends(log_snr_min: float, log_snr_max: float) -> tuple[float, float, float]:
    """Returns u_0, 1 - u_1 and u_1 - u_0, with the ends u_0 and u_1 of `flow`."""
    u_0 = 1 / (1 + math.exp(log_snr_max / 2))
    v_1 = 1 / (1 + math.exp(-log_snr_min / 2))
    return u_0, v_1, 1 - v_1 - u_0


SCHEDULES = {
    "cosine": Curve(cosine, _cosine_time),
    "linear": Curve(linear, _linear_time),
    "iddpm": Curve(iddpm, _iddpm_time),
    "flow": Curve(flow, _flow_time),
}


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    """The noise schedule of an experiment; hashable, so it may be static under `jax.jit`.

    `schedule(t)` returns the log-SNR at times t in [0, 1], of any shape, as float32.
    `schedule.time(log_snr)` is its inverse.

    Attributes:
        name: a key of `SCHEDULES` or `BETAS`.
        shift: the ratio noise_d / image_d in "simple diffusion" (arXiv 2301.11093, section 3.1).
            Averaging neighbouring pixels removes noise but little of the image. So a 128x128 clip
            needs more noise than a 64x64 clip to be equally destroyed. If a schedule suits 64x64
            clips, shift = 64 / 128 adapts it to 128x128 clips. The shift adds 2 log(shift) to the
            log-SNR at every t, and so to both bounds. A shift of 1 changes nothing.
        log_snr_min: log-SNR at t = 1, before the shift, of a schedule of `SCHEDULES`.
        log_snr_max: log-SNR at t = 0, before the shift, of a schedule of `SCHEDULES`.
        beta_start: beta of the first step, of a schedule of `BETAS`.
        beta_end: beta of the last step, of a schedule of `BETAS`.
        zero_terminal_snr: True if a schedule of `BETAS` is to have a log-SNR of -inf at t = 1
            (`betas.rescaled`).

    Raises:
        UserError: `name` is unknown, `shift` is not positive, the bounds or betas are in the wrong
            order, or a schedule of `SCHEDULES` is to have a zero terminal SNR.
    """

    name: str = "cosine"
    shift: float = 1.0
    log_snr_min: float = -15.0
    log_snr_max: float = 15.0
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_terminal_snr: bool = False

    def __post_init__(self):
        self._curve()
        if not self.shift > 0:
            raise UserError(
                f"noise schedule shift is {self.shift}; it must be positive, such as 64 / 128"
            )
        if not self.log_snr_min < self.log_snr_max:
            raise UserError(
                f"noise schedule has log_snr_min {self.log_snr_min} and log_snr_max "
                f"{self.log_snr_max}; the minimum must be below the maximum"
            )
        if not 0 < self.beta_start < self.beta_end < 1:
            raise UserError(
                f"noise schedule has beta_start {self.beta_start} and beta_end {self.beta_end}; "
                "they must rise and lie between 0 and 1"
            )
        if self.zero_terminal_snr and self.name not in BETAS:
            raise UserError(
                f"the noise schedule {self.name!r} has no zero terminal SNR; choose one of "
                f"{', '.join(BETAS)}"
            )

    def _curve(self) -> Curve:
        """Returns a curve whose functions take t or the log-SNR alone, without the bounds."""
        if self.name in BETAS:
            steps = Steps(self.name, self.beta_start, self.beta_end, self.zero_terminal_snr)
            return Curve(steps.log_snr, steps.time)
        table = SCHEDULES | dict.fromkeys(BETAS)
        found = extensions.find(table, self.name, extensions.NoiseSchedule)
        bounds = self.log_snr_min, self.log_snr_max
        return Curve(lambda t: found.log_snr(t, *bounds), lambda level: found.time(level, *bounds))

    def __call__(self, t: Float[Array, "*n"]) -> Float32[Array, "*n"]:
        return self._curve().log_snr(t) + 2 * math.log(self.shift)

    def time(self, log_snr: Float[Array, "*n"]) -> Float32[Array, "*n"]:
        """Returns the time in [0, 1] at which the schedule has the given log-SNR.

        A log-SNR beyond the schedule's bounds gives 0 or 1.
        """
        t = self._curve().time(log_snr.astype(jnp.float32) - 2 * math.log(self.shift))
        return jnp.clip(t, 0.0, 1.0)


def alpha_sigma(
    log_snr: Float[Array, "*n"],
) -> tuple[Float32[Array, "*n"], Float32[Array, "*n"]]:
    """Returns the amplitudes of signal and noise, alpha and sigma.

    alpha = sqrt(sigmoid(log_snr)) and sigma = sqrt(sigmoid(-log_snr)). Each comes from its own
    sigmoid, never from sqrt(1 - other^2), so that both keep their relative precision when tiny.
    log_snr = +inf gives exactly (1, 0) and -inf gives exactly (0, 1).
    """
    log_snr = log_snr.astype(jnp.float32)
    return jnp.sqrt(jax.nn.sigmoid(log_snr)), jnp.sqrt(jax.nn.sigmoid(-log_snr))


# Standard deviation that EDM assumes for the values of the data (arXiv 2206.00364, table 1).
EDM_DATA_STD = 0.5


def edm_std(alpha: Array, sigma: Array) -> Array:
    """Returns the standard deviation of x_t for data of standard deviation EDM_DATA_STD."""
    return jnp.sqrt((alpha * EDM_DATA_STD) ** 2 + sigma**2)


# Name -> the number by which x_t is multiplied before the network sees it, from alpha and sigma.
INPUT_SCALES = {
    "none": lambda alpha, sigma: jnp.ones_like(alpha),
    # The amplitudes of signal and noise then sum to 1: (1 - u) x0 + u noise.
    "flow": lambda alpha, sigma: 1 / (alpha + sigma),
    # c_in of EDM. Data of standard deviation EDM_DATA_STD give an input of unit variance.
    "edm": lambda alpha, sigma: 1 / edm_std(alpha, sigma),
}


def input_scale(name: str, log_snr: Float[Array, "*n"]) -> Float32[Array, "*n"]:
    """Returns the number by which x_t is multiplied before the network sees it.

    All families of diffusion noise a clip as a x0 + b noise. Two families with the same ratio
    a / b, and so with the same log-SNR, differ only by a factor. In this package, x_t is always the
    member with alpha^2 + sigma^2 = 1. The product of x_t and this number is the member that the
    network was trained on:
        none: x_t itself.
        flow: (1 - u) x0 + u noise (flow matching, arXiv 2210.02747).
        edm: x_t divided by the standard deviation that it has if the data's is 0.5 (Karras et al.,
            arXiv 2206.00364, table 1).

    Args:
        name: a key of `INPUT_SCALES`.
        log_snr: log-SNR of each clip.

    Raises:
        UserError: `name` is unknown.
    """
    return choose(INPUT_SCALES, name, "input scale")(*alpha_sigma(log_snr))
