"""Targets of multistep consistency distillation: a student learns to take large steps at once.

The method is Heek, Hoogeboom and Salimans, "Multistep Consistency Models" (arXiv 2403.06807),
algorithm 1, with deterministic DDIM. The noise times from 0 to 1 are cut into equal segments, one
for each step of the student. Each segment is cut into equal parts, one for each step of the
teacher. From any time t of this grid, one step of the student to the cleaner end of its segment is
to lead where all steps of the teacher lead.

To learn this for a noisy clip at time t, the teacher first takes one step, to the next time s. From
there the student steps to the end of the segment, and the student's step from t is to lead to the
same place. In the last part of a segment, s is that end, and the teacher alone counts.

With one segment, this is a consistency model (Song et al., arXiv 2303.01469). With two parts in
each segment, it is close to progressive distillation (Salimans and Ho, arXiv 2202.00512).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from stunet.diffusion.prediction import add_noise, to_eps
from stunet.diffusion.schedules import NoiseSchedule
from stunet.errors import UserError

Denoise = Callable[[Array, Array], Array]


class Times(NamedTuple):
    """Noise times of the steps that a clip is trained on; all have the shape of the clip's time.

    Attributes:
        t: time of the noisy clip.
        s: time after the teacher's step.
        end: time after the student's step: the cleaner end of the segment.
    """

    t: Array
    s: Array
    end: Array


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Says which steps a student learns, and what its teacher does.

    Attributes:
        steps: number of steps that the student takes from noise to clip, at least 1.
        teacher_steps: number of steps that the teacher takes, a multiple of `steps`.
        guidance_scale: scale of the teacher's classifier-free guidance (`guidance.guide`).
        threshold: mode in which the estimates of teacher and student are kept in -1..1, a key of
            `guidance.THRESHOLDS`.

    Raises:
        UserError: `teacher_steps` is no multiple of `steps`.
    """

    steps: int
    teacher_steps: int
    guidance_scale: float = 1.0
    threshold: str = "static"

    def __post_init__(self):
        if self.steps < 1 or self.teacher_steps < 1 or self.teacher_steps % self.steps:
            raise UserError(
                f"the teacher takes {self.teacher_steps} steps and the student {self.steps}; the "
                "first must be a multiple of the second"
            )

    def times(self, t: Float[Array, "*n"]) -> Times:
        """Returns the times of the steps, for the time of the grid at or after t.

        If t is uniform in 0..1, all times of the grid but 0 are equally likely.
        """
        parts = self.teacher_steps // self.steps
        place = jnp.clip(jnp.ceil(t * self.teacher_steps), 1, self.teacher_steps)
        end = jnp.floor((place - 1) / parts) * parts
        return Times(*(x / self.teacher_steps for x in (place, place - 1, end)))


def level(schedule: NoiseSchedule, time: Float[Array, "*n"]) -> Float32[Array, "*n"]:
    """Returns the log-SNR at which a step ends: +inf, which is no noise, at time 0."""
    return jnp.where(time > 0, schedule(time), jnp.inf)


def teacher_share(
    log_snr_t: Float[Array, "*n"], log_snr_s: Float[Array, "*n"], log_snr_end: Float[Array, "*n"]
) -> Float32[Array, "*n"]:
    """Returns the share, 0..1, of the teacher's estimate in the estimate that the student learns.

    A step of DDIM over the distance h of lambda = log_snr / 2 multiplies x / sigma by 1, and adds
    to it (exp(h) - 1) alpha / sigma of its beginning times the estimate of x0. So the steps from t
    to s with the estimate x' and from s to the end with x'' lead to the same place as one step with
        share x' + (1 - share) x'',  share = exp(-h_s) (1 - exp(-h_t)) / (1 - exp(-h_t - h_s))
    where h_t and h_s are the lengths of the two steps. The estimate is never outside the range of
    the two, and the formula divides by no small number.
    """
    to_end = jnp.exp((log_snr_s - log_snr_end) / 2)
    to_s, whole = (-jnp.expm1((log_snr_t - x) / 2) for x in (log_snr_s, log_snr_end))
    # Both are infinite if the segment ends without noise.
    return jnp.where(log_snr_s == log_snr_end, 1.0, to_end * to_s / whole)


def targets(
    teacher: Denoise,
    student: Denoise,
    x_t: Float[Array, "b ..."],
    times: Times,
    schedule: NoiseSchedule,
) -> tuple[Float32[Array, "b ..."], Float32[Array, "b ..."]]:
    """Returns the clean clips and the noise that the student's output is trained towards.

    They add up to the noisy clips: x_t = alpha x0 + sigma noise. So the student's loss is that of
    ordinary training (`loss.clip_loss`), in any parametrisation. No gradient flows through them.

    Args:
        teacher: (x_t, times [b]) -> estimate of x0.
        student: the same for the student.
        x_t: noisy clips at `times.t`.
        times: times `[b]` of the steps.
        schedule: schedule of both networks.
    """
    log_snr_t = schedule(times.t)
    log_snr_s, log_snr_end = (level(schedule, time) for time in (times.s, times.end))
    taught = teacher(x_t, times.t)
    x_s = add_noise(taught, to_eps("x0", taught, x_t, log_snr_t), log_snr_s)
    learnt = student(x_s, times.s)
    share = teacher_share(log_snr_t, log_snr_s, log_snr_end)
    share = share.reshape(share.shape + (1,) * (x_t.ndim - 1))
    x0 = share * taught + (1 - share) * learnt
    return jax.lax.stop_gradient((x0, to_eps("x0", x0, x_t, log_snr_t)))
