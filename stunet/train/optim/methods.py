"""Methods that turn gradients into updates, in a table by name.

The methods are those of optax, and AdamW in 8 bits, which optax does not have. To add one, write a
function that makes it from `Numbers`, add it to `METHODS`, and list its name in the key
`train.optimizer`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from flax.traverse_util import path_aware_map
from jaxtyping import Array, Float, Int

from stunet.nn import lora
from stunet.nn.parameters import is_stacked
from stunet.train.optim.eight_bits import scale_by_adam_8bit

Transformation = optax.GradientTransformation

# Adafactor: the decay of its second moment is 1 - t**-0.8 after t updates, and an update whose root
# mean square is above 1 is scaled down to 1 (Shazeer and Stern, arXiv 1804.04235).
_DECAY_EXPONENT = 0.8
_LARGEST_RMS = 1.0

# Muon: the decay of its momentum, and the root mean square of its updates as a share of the
# learning rate. AdamW's is about as large, so a learning rate of AdamW suits Muon (Liu et al.,
# arXiv 2502.16982).
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
    """Makes AdamW (Loshchilov and Hutter, arXiv 1711.05101), which stores two moments."""
    return optax.adamw(
        numbers.learning_rate,
        b1=numbers.beta1,
        b2=numbers.beta2,
        weight_decay=numbers.weight_decay,
        mask=_are_matrices,
    )


def adamw_8bit(numbers: Numbers) -> Transformation:
    """Makes AdamW whose moments of kernels take a byte each (`stunet.train.optim.eight_bits`)."""
    return optax.chain(
        scale_by_adam_8bit(numbers.beta1, numbers.beta2),
        optax.add_decayed_weights(numbers.weight_decay, _are_matrices),
        optax.scale_by_learning_rate(numbers.learning_rate),
    )


def lion(numbers: Numbers) -> Transformation:
    """Makes Lion (Chen et al., arXiv 2302.06675), whose updates are the signs of one moment."""
    return optax.lion(
        numbers.learning_rate,
        b1=numbers.beta1,
        b2=numbers.beta2,
        weight_decay=numbers.weight_decay,
        mask=_are_matrices,
    )


def adafactor(numbers: Numbers) -> Transformation:
    """Makes Adafactor as Zhai et al. use it (arXiv 2106.04560).

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
    """Makes Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon).

    An update of a matrix is its one moment, with all singular values set to about 1. `muon_axes`
    says which parameters it takes. AdamW trains the others, with Nesterov's momentum and without
    weight decay.
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
        if not lora.is_matrix(path) or path[0] in _ENDS:
            return None
        rows = range(1 if is_stacked(path) else 0, leaf.ndim - 1)
        return optax.contrib.MuonDimensionNumbers(tuple(rows), leaf.ndim - 1)

    return path_aware_map(axes, params)


def adam_without_first_moment(numbers: Numbers) -> Transformation:
    """Makes AdamW with beta1 = 0, which stores no first moment."""
    return optax.chain(
        optax.scale_by_rms(numbers.beta2, eps=1e-8, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(numbers.weight_decay, _are_matrices),
        optax.scale_by_learning_rate(numbers.learning_rate),
    )


def schedule_free(inner: Transformation, numbers: Numbers) -> Transformation:
    """Makes an optimiser schedule-free (Defazio et al., arXiv 2405.15682).

    `inner` updates the weights z. Gradients are taken at y = beta1 x + (1 - beta1) z, which the
    parameters of the state hold. The average x of all z takes the place of a first moment, of a
    falling learning rate, and of the EMA weights.
    """
    # optax counts the updates from 1 here.
    return optax.contrib.schedule_free(
        inner, lambda count: numbers.learning_rate(count - 1), b1=numbers.beta1
    )


def _average_of_schedule_free(opt_state: Any, params: Any) -> Any:
    """Returns the average x of schedule-free AdamW."""
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
    "adamw_8bit": Method(adamw_8bit),
    "adafactor": Method(adafactor),
    "lion": Method(lion),
    "muon": Method(muon),
    "schedule_free": Method(
        adam_without_first_moment, around=schedule_free, average=_average_of_schedule_free
    ),
}


def _are_matrices(params: Any) -> Any:
    """Tells which parameters are kernels or adapters, not vectors. Only they have weight decay."""
    return path_aware_map(lambda path, _: lora.is_matrix(path), params)
