"""Makes the optimiser: AdamW with gradient clipping, a learning rate by schedule, and an EMA."""

import dataclasses
from typing import Any

import jax
import optax
from flax.traverse_util import path_aware_map

from stunet.nn import lora
from stunet.train import learning_rates
from stunet.train.guard import Guard


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Says how gradients become updates.

    Attributes:
        transformation: maps gradients to updates, and defines the moments.
        learning_rate: maps the number of an update, counted from 0, to its learning rate.
        ema_decay: decay of the running average of the weights, 0..1.
        guard: says which updates are skipped.
    """

    transformation: optax.GradientTransformation
    learning_rate: optax.Schedule
    ema_decay: float
    guard: Guard = dataclasses.field(default_factory=Guard)


def adamw(
    *,
    schedule: str,
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    final_learning_rate: float,
    decay_begin: int,
    beta1: float,
    beta2: float,
    weight_decay: float,
    clip_norm: float,
    ema_decay: float,
) -> Optimizer:
    """Makes AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    Args:
        schedule: name of the schedule of the learning rate (`learning_rates.SCHEDULES`).
        steps: number of updates in the run, including the warm-up.
        learning_rate: learning rate at the end of the warm-up.
        warmup_steps: number of updates of the linear warm-up.
        final_learning_rate: share of `learning_rate` at the last update, if the schedule has one.
        decay_begin: number of updates done when the learning rate begins to fall, if the schedule
            lets a config choose it; 0 for the schedule's default.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        weight_decay: weight decay of matrices and kernels. Vectors have none.
        clip_norm: largest global norm of the gradient; a larger gradient is scaled down.
        ema_decay: decay of the running average of the weights.
    """
    course = learning_rates.Course(
        learning_rate, steps, warmup_steps, final_learning_rate, decay_begin
    )
    rate = learning_rates.make(schedule, course)
    transformation = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(rate, b1=beta1, b2=beta2, weight_decay=weight_decay, mask=_has_decay),
    )
    return Optimizer(transformation, rate, ema_decay)


def on_schedule(opt_state: Any, step: jax.Array) -> Any:
    """Returns the optimiser's state, with its learning-rate schedule moved to update `step`.

    The optimiser's own count leaves out updates that were skipped.

    Args:
        opt_state: state of the optimiser.
        step: number of the update, counted from 0. Skipped updates count too.
    """

    def is_schedule(leaf: Any) -> bool:
        return isinstance(leaf, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda leaf: leaf._replace(count=step) if is_schedule(leaf) else leaf,
        opt_state,
        is_leaf=is_schedule,
    )


def _has_decay(params: Any) -> Any:
    """Tells which parameters have weight decay, by their names.

    The number of axes cannot tell this, because the vectors of scanned layers are stacked and then
    have as many axes as a matrix.
    """
    return path_aware_map(lambda path, _: path[-1] in ("kernel", lora.A, lora.B), params)
