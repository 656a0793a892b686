"""Makes the optimiser: AdamW with gradient clipping, linear warm-up, cosine decay and an EMA."""

import dataclasses
from typing import Any

import jax
import optax
from flax.traverse_util import path_aware_map

from stunet.nn import lora
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
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    final_learning_rate: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    clip_norm: float,
    ema_decay: float,
) -> Optimizer:
    """Makes AdamW (Loshchilov and Hutter, arXiv 1711.05101).

    Args:
        steps: number of updates, including the warm-up, after which the cosine decay ends.
        learning_rate: learning rate at the end of the warm-up.
        warmup_steps: number of updates of the linear warm-up.
        final_learning_rate: share of `learning_rate` that is left at the end of the cosine decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        weight_decay: weight decay of matrices and kernels. Vectors have none.
        clip_norm: largest global norm of the gradient; a larger gradient is scaled down.
        ema_decay: decay of the running average of the weights.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=learning_rate / (warmup_steps + 1),
        peak_value=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(steps, warmup_steps + 1),
        end_value=learning_rate * final_learning_rate,
    )
    transformation = optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(schedule, b1=beta1, b2=beta2, weight_decay=weight_decay, mask=_has_decay),
    )
    return Optimizer(transformation, schedule, ema_decay)


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
