"""Learning rates: a linear warm-up, and then one of several schedules."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from stunet import extensions

# Share of all updates after which `wsd` decays, if the config names no update.
_WSD_BEGIN = 0.8


@dataclasses.dataclass(frozen=True)
class Course:
    """Says how the learning rate goes on after the warm-up.

    Attributes:
        peak: learning rate at the end of the warm-up.
        steps: number of updates in the run, including the warm-up.
        warmup_steps: number of updates in the warm-up.
        final: learning rate at the last update, as a share of `peak`.
        decay_begin: number of updates done when the rate begins to fall, for the schedules `wsd`
            and `inverse_sqrt`; 0 takes the schedule's own default.
    """

    peak: float
    steps: int
    warmup_steps: int
    final: float
    decay_begin: int


def constant(course: Course) -> optax.Schedule:
    """Stays at the peak."""
    return optax.constant_schedule(course.peak)


def cosine(course: Course) -> optax.Schedule:
    """Falls along a cosine until the last update (Loshchilov and Hutter, arXiv 1608.03983)."""
    updates = max(course.steps - course.warmup_steps, 1)
    return optax.cosine_decay_schedule(course.peak, updates, course.final)


def warmup_stable_decay(course: Course) -> optax.Schedule:
    """Stays at the peak, then falls quickly (Hu et al., arXiv 2404.06395).

    The fall is 1 - sqrt(progress), which did best in Hägele et al. (arXiv 2405.18392). It begins
    after 80% of the updates unless `decay_begin` says when.
    """
    begin = max(course.decay_begin or round(_WSD_BEGIN * course.steps), course.warmup_steps)
    updates = max(course.steps - begin, 1)

    def rate(update: Int[Array, ""]) -> Array:
        progress = jnp.clip((update + course.warmup_steps - begin) / updates, 0.0, 1.0)
        return course.peak * (1 - (1 - course.final) * jnp.sqrt(progress))

    return rate


def inverse_sqrt(course: Course) -> optax.Schedule:
    """Falls as 1 / sqrt(update), as in the Transformer (Vaswani et al., arXiv 1706.03762).

    The fall begins at the end of the warm-up unless `decay_begin` says when, as t_ref does in
    Karras et al. (arXiv 2312.02696).
    """
    begin = course.decay_begin or course.warmup_steps

    def rate(update: Int[Array, ""]) -> Array:
        return course.peak * jnp.sqrt(begin / jnp.maximum(update + course.warmup_steps, begin))

    return rate


# Name of a schedule -> function that makes it. A schedule maps the number of updates since the end
# of the warm-up to a learning rate.
SCHEDULES: dict[str, Callable[[Course], optax.Schedule]] = {
    "cosine": cosine,
    "constant": constant,
    "wsd": warmup_stable_decay,
    "inverse_sqrt": inverse_sqrt,
}


def make(schedule: str, course: Course) -> optax.Schedule:
    """Returns the learning rate of each update, as a function of its number, counted from 0.

    Args:
        schedule: a name in `SCHEDULES`, or of a user's own.
        course: the numbers of the schedule.
    """
    fall = extensions.find(SCHEDULES, schedule, extensions.LearningRate)
    warmup = course.warmup_steps
    rise = optax.linear_schedule(course.peak / (warmup + 1), course.peak, warmup)
    return optax.join_schedules([rise, fall(course)], [warmup])
