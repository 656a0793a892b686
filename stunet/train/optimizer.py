"""Makes the optimiser: one of several methods, with gradient clipping and averaged weights.

The methods are those of optax. To add one, write a function that makes it from `Numbers`, add it to
`METHODS`, and list its name in the key `train.optimizer`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import path_aware_map
from jaxtyping import Array, Float, Int

from stunet.nn import lora
from stunet.nn.parameters import is_stacked, is_temporal, is_text
from stunet.train import learning_rates
from stunet.train.guard import Guard

Transformation = optax.GradientTransformation

# Adafactor: the decay of its second moment is 1 - t**-0.8 after t updates, and an update whose root
# mean square is above 1 is scaled down to 1 (Shazeer and Stern, arXiv 1804.04235, sections 6, 7.2).
_DECAY_EXPONENT = 0.8
_LARGEST_RMS = 1.0

# Muon: the decay of its momentum, and the root mean square of its updates as a share of the
# learning rate. AdamW's is about as large, so a learning rate of AdamW suits Muon (Liu et al.,
# arXiv 2502.16982, section 2.2).
_MUON_BETA = 0.95
_MUON_RMS = 0.2

# Modules whose kernels Muon leaves to AdamW: the first and the last layer of the network.
_ENDS = ("conv_in", "conv_out")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Holds the numbers that a method takes.

    Attributes:
        learning_rate: maps the number of an update, counted from 0, to its learning rate.
        beta1: decay of the first moment, 0..1.
        beta2: decay of the second moment, 0..1.
        weight_decay: weight decay of matrices and kernels. Vectors have none.
    """

    learning_rate: optax.Schedule
    beta1: float
    beta2: float
    weight_decay: float


def adamw(numbers: Numbers) -> Transformation:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101): two moments of each parameter."""
    return optax.adamw(
        numbers.learning_rate,
        b1=numbers.beta1,
        b2=numbers.beta2,
        weight_decay=numbers.weight_decay,
        mask=_are_matrices,
    )


def lion(numbers: Numbers) -> Transformation:
    """Lion (Chen et al., arXiv 2302.06675): one moment. An update is its sign."""
    return optax.lion(
        numbers.learning_rate,
        b1=numbers.beta1,
        b2=numbers.beta2,
        weight_decay=numbers.weight_decay,
        mask=_are_matrices,
    )


def adafactor(numbers: Numbers) -> Transformation:
    """Adafactor as Zhai et al. use it (arXiv 2106.04560, section 3.4).

    The second moment of a kernel of at least 128 inputs and outputs is a product of two sums, one
    over each of its two largest axes. Its decay grows with the updates up to `beta2`. The first
    moment is stored in bfloat16, and there is none if `beta1` is 0. Unlike in Shazeer and Stern
    (arXiv 1804.04235), updates are not scaled by the size of the parameter. That would stop layers
    that start at zero.
    """
    moment = optax.ema(numbers.beta1, debias=False, accumulator_dtype=jnp.bfloat16)

    def decay(update: Int[Array, ""], exponent: float) -> Float[Array, ""]:
        return jnp.minimum(1 - (update + 1.0) ** -exponent, numbers.beta2)

    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=_DECAY_EXPONENT, decay_rate_fn=decay),
        optax.clip_by_block_rms(_LARGEST_RMS),
        *([moment] if numbers.beta1 else []),
        optax.add_decayed_weights(numbers.weight_decay, _are_matrices),
        optax.scale_by_learning_rate(numbers.learning_rate),
    )


def muon(numbers: Numbers) -> Transformation:
    """Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): one moment.

    An update of a matrix is its moment with all singular values set to about 1. `muon_axes` says
    which parameters it takes. AdamW trains the others, with Nesterov's momentum and without weight
    decay.
    """
    return optax.contrib.muon(
        numbers.learning_rate,
        beta=_MUON_BETA,
        weight_decay=numbers.weight_decay,
        adam_b1=numbers.beta1,
        adam_b2=numbers.beta2,
        muon_weight_dimension_numbers=muon_axes,
        consistent_rms=_MUON_RMS,
    )


def muon_axes(params: Any) -> Any:
    """Returns which axes of each parameter are the rows and columns of a matrix, for Muon.

    Muon takes the kernels of convolutions and projections, and adapters. As in `stunet.nn.lora`,
    the rows of a kernel are all inputs that one output position sees, and its columns are the
    output features. Each layer of a stacked kernel is a matrix of its own. Muon does not take
    biases, norms, positional embeddings, or kernels of the first and the last layer. Jordan et al.
    leave these to AdamW.

    Args:
        params: tree of parameters.

    Returns:
        A tree with `MuonDimensionNumbers` for each parameter that Muon takes, and None for others.
    """

    def axes(path: tuple[str, ...], leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not _is_matrix(path) or path[0] in _ENDS:
            return None
        rows = range(1 if is_stacked(path) else 0, leaf.ndim - 1)
        return optax.contrib.MuonDimensionNumbers(tuple(rows), leaf.ndim - 1)

    return path_aware_map(axes, params)


def adam_without_first_moment(numbers: Numbers) -> Transformation:
    """Adam with beta1 = 0, and weight decay: a second moment of each parameter."""
    return optax.chain(
        optax.scale_by_rms(numbers.beta2, eps=1e-8, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(numbers.weight_decay, _are_matrices),
        optax.scale_by_learning_rate(numbers.learning_rate),
    )


def schedule_free(inner: Transformation, numbers: Numbers) -> Transformation:
    """Makes an optimiser schedule-free (Defazio et al., arXiv 2405.15682): a second copy z.

    `inner` updates the weights z. Gradients are taken at y = beta1 x + (1 - beta1) z, which the
    parameters of the state hold. The average x of all z takes the place of a first moment, of a
    falling learning rate, and of the EMA weights.
    """
    # optax counts the updates from 1 here.
    return optax.contrib.schedule_free(
        inner, lambda count: numbers.learning_rate(count - 1), b1=numbers.beta1
    )


def _average_of_schedule_free(opt_state: Any, params: Any) -> Any:
    """Returns the average x."""
    _, state = opt_state
    return optax.contrib.schedule_free_eval_params(state, params)


@dataclasses.dataclass(frozen=True)
class Method:
    """Describes an optimiser.

    Attributes:
        make: makes the optimiser, without gradient clipping and learning rates of groups.
        around: makes another optimiser from that one; None to take that one.
        average: returns the averaged weights, for a method that averages the weights itself. Takes
            the state of clipping and optimiser, and the parameters. None for other methods: the
            averaged weights are an exponential moving average (EMA).
    """

    make: Callable[[Numbers], Transformation]
    around: Callable[[Transformation, Numbers], Transformation] | None = None
    average: Callable[[Any, Any], Any] | None = None


# Methods by their names in a config (`train.optimizer`).
METHODS = {
    "adamw": Method(adamw),
    "adafactor": Method(adafactor),
    "lion": Method(lion),
    "muon": Method(muon),
    "schedule_free": Method(
        adam_without_first_moment, around=schedule_free, average=_average_of_schedule_free
    ),
}


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
        own_average: see `Method.average`.
        guard: says which updates are skipped.
    """

    transformation: Transformation
    learning_rate: optax.Schedule
    ema_decay: float
    own_average: Callable[[Any, Any], Any] | None = None
    guard: Guard = dataclasses.field(default_factory=Guard)

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
        optimizer: name of the method (`METHODS`).
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
        temporal_rate: learning rate of the temporal layers, as a multiple of `learning_rate`.
        spatial_rate: the same for parameters of no other group.
        text_rate: the same for parameters that take the caption's token states.
    """
    course = learning_rates.Course(
        learning_rate, steps, warmup_steps, final_learning_rate, decay_begin
    )
    rate, method = learning_rates.make(schedule, course), METHODS[optimizer]
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


def _are_matrices(params: Any) -> Any:
    """Tells which parameters are kernels or adapters, not vectors. Only they have weight decay."""
    return path_aware_map(lambda path, _: _is_matrix(path), params)


def _is_matrix(path: tuple[str, ...]) -> bool:
    """Tells whether a parameter is a kernel or an adapter, by its name.

    The number of axes cannot tell this, because the vectors of scanned layers are stacked and then
    have as many axes as a matrix.
    """
    return path[-1] in ("kernel", lora.A, lora.B)
