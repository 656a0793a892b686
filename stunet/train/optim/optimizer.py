"""Makes the optimiser: a method, with gradient clipping, a learning rate and averaged weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import path_aware_map
from jaxtyping import Array, Int

from stunet import extensions
from stunet.nn.parameters import is_temporal, is_text
from stunet.train.optim import learning_rates
from stunet.train.optim.guard import Guard
from stunet.train.optim.methods import METHODS, Numbers, Transformation


def group(path: Sequence[str]) -> str:
    """Returns the group of a parameter: "temporal", "text" or "spatial"."""
    if is_temporal(path):
        return "temporal"
    return "text" if is_text(path) else "spatial"


def by_group(inner: Transformation, multiples: Mapping[str, float]) -> Transformation:
    """Multiplies the updates of each group of parameters, and so its learning rate.

    The state stays that of `inner`, so that the multiples may change when a run continues.

    Args:
        inner: an optimiser.
        multiples: factor of each group (`group`).
    """
    if set(multiples.values()) == {1.0}:
        return inner

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, state, params)
        scaled = path_aware_map(lambda path, leaf: multiples[group(path)] * leaf, updates)
        return scaled, state

    return Transformation(inner.init, update)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Says how gradients become updates.

    Attributes:
        transformation: maps gradients to updates, and defines the moments.
        learning_rate: maps the number of an update, counted from 0, to its learning rate.
        ema_decay: decay of the running average of the weights, 0..1.
        own_average: see `methods.Method.average`.
        keeps_power_ema: True if the state has the averages of `stunet.train.optim.power_ema` too.
        guard: says which updates are skipped.
        keeps_teacher: True if the state has the weights that the run begins with too.
    """

    transformation: Transformation
    learning_rate: optax.Schedule
    ema_decay: float
    own_average: Callable[[Any, Any], Any] | None = None
    keeps_power_ema: bool = False
    guard: Guard = dataclasses.field(default_factory=Guard)
    keeps_teacher: bool = False

    def average(self, ema: Any, params: Any, opt_state: Any, step: Int[Array, ""]) -> Any:
        """Returns the averaged weights after an update.

        Args:
            ema: averaged weights before the update.
            params: parameters after the update.
            opt_state: state of `transformation` after the update.
            step: number of the update, counted from 0.
        """
        if self.own_average:
            return self.own_average(opt_state, params)
        # Early weights are far from the final ones. So the average covers only the recent tenth of
        # the run at first.
        decay = jnp.minimum(self.ema_decay, (1.0 + step) / (10.0 + step))
        return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)


def make_optimizer(
    *,
    optimizer: str,
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
    temporal_rate: float = 1.0,
    spatial_rate: float = 1.0,
    text_rate: float = 1.0,
) -> Optimizer:
    """Makes an optimiser that never skips an update.

    Args:
        optimizer: name of the method, in `methods.METHODS` or of a user's own.
        schedule: name of the schedule of the learning rate, in `learning_rates.SCHEDULES` or of a
            user's own.
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
        temporal_rate: learning rate of the temporal layers, as a multiple of `learning_rate`.
        spatial_rate: the same for parameters of no other group.
        text_rate: the same for parameters that take the caption's token states.
    """
    course = learning_rates.Course(
        learning_rate, steps, warmup_steps, final_learning_rate, decay_begin
    )
    rate = learning_rates.make(schedule, course)
    method = extensions.find(METHODS, optimizer, extensions.Optimizer)
    numbers = Numbers(rate, beta1, beta2, weight_decay)
    multiples = {"temporal": temporal_rate, "spatial": spatial_rate, "text": text_rate}
    updates = by_group(method.make(numbers), multiples)
    if method.around:
        updates = method.around(updates, numbers)
    transformation = optax.chain(optax.clip_by_global_norm(clip_norm), updates)
    return Optimizer(transformation, rate, ema_decay, method.average)


def on_schedule(opt_state: Any, step: Int[Array, ""]) -> Any:
    """Returns the optimiser's state, with its learning-rate schedule moved to update `step`.

    The optimiser's own count leaves out updates that were skipped.

    Args:
        opt_state: state of the optimiser.
        step: number of the update, counted from 0. Skipped updates count too.
    """
    schedule, free = optax.ScaleByScheduleState, optax.contrib.ScheduleFreeState

    def move(node: Any) -> Any:
        if isinstance(node, schedule):
            return node._replace(count=step)
        if isinstance(node, free):
            inner = on_schedule(node.base_optimizer_state, step)
            return node._replace(step_count=step + 1, base_optimizer_state=inner)
        return node

    return jax.tree.map(move, opt_state, is_leaf=lambda node: isinstance(node, (schedule, free)))
