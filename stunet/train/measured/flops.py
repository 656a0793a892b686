"""Counts the floating-point operations in the network's trace (jaxpr).

The trace holds the operations that the model asks for. The compiled program may run more or fewer.
"""

import functools
import math
from collections.abc import Callable

import jax
from jax.extend import core

from stunet.train import pieces
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.objectives.objective import Model
from stunet.train.parts import Parts
from stunet.train.sampling import SamplerSettings


def model_flops(model: Model, batch_size: int, more_passes: int = 0) -> int:
    """Counts the floating-point operations of one update.

    The backward pass counts as two forward passes. In blocks with frozen parameters, it counts as
    one forward pass, because it computes no gradients of these parameters.

    Args:
        model: the network and which of its parameters are trained.
        batch_size: clips in the update.
        more_passes: forward passes beside the trained one (`Objective.more_passes`).
    """
    in_frozen = 0
    if model.trainable.is_partial:  # Nothing is frozen otherwise, and the trace is saved.
        frozen = [piece for piece in pieces.find(model, 1) if not piece.trained]
        in_frozen = sum(len(piece.calls) * of_piece(piece) for piece in frozen)
    return batch_size * ((3 + more_passes) * forward_flops(model) - in_frozen)


def mean_flops(parts: Parts) -> float:
    """Returns the mean of the floating-point operations of a run's updates."""
    total = math.fsum(bucket.weight for bucket in parts.buckets)
    shares = ((bucket.weight / total, parts.only(bucket)) for bucket in parts.buckets)
    return sum(
        share * model_flops(one.model, one.batch_size, one.objective.more_passes)
        for share, one in shares
    )


def sampling_flops(denoiser: Denoiser, settings: SamplerSettings, clips: int = 1) -> int:
    """Counts the floating-point operations of sampling.

    Guidance runs the network twice in each step: with the caption and without. Autoguidance also
    runs a weaker version of it.

    Args:
        denoiser: the network.
        settings: sampler, steps and guidance.
        clips: number of clips of the network's own length. A cascade that samples a longer clip in
            overlapping windows samples `cascade.count_windows` clips of this length.

    Returns:
        Operations of all steps of all clips; a multiplication and an addition are two.
    """
    runs = 1 + (settings.guidance_scale not in (0, 1)) + (settings.autoguidance_scale != 1)
    return clips * settings.steps * runs * forward_flops(denoiser)


@functools.lru_cache(maxsize=64)  # The members of a sweep share networks.
def forward_flops(model: Model) -> int:
    """Counts the floating-point operations of one forward pass of the network for one clip."""
    network, arguments = model.network_of_clips, model.abstract_arguments(1)
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    return count(network.apply, params, *arguments)


def of_piece(piece: pieces.Piece) -> int:
    """Counts the floating-point operations of one forward pass of a block of the network."""
    params = pieces.abstract_init(piece.module, piece.arguments)
    return count(piece.module.apply, params, *piece.arguments)


def count(function: Callable, *arguments) -> int:
    """Counts the operations of all matrix products and convolutions in `function(*arguments)`.

    A multiplication and an addition count as two operations. Arguments may be shapes
    (`jax.ShapeDtypeStruct`).
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
        per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        # Zeros that the convolution puts between its inputs need no multiplication.
        return 2 * equation.outvars[0].aval.size * per_output // math.prod(params["lhs_dilation"])
    inner = [_of_jaxpr(jaxpr) for jaxpr in _jaxprs(params)]
    if name == "cond":
        return max(inner)
    return sum(inner) * params.get("length", 1) if name == "scan" else sum(inner)


def _jaxprs(params):
    for value in jax.tree.leaves(
        list(params.values()), is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr))
    ):
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
