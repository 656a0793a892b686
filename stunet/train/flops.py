"""Floating-point operations of the network, counted from its trace: what the model asks for,
whatever the compiler makes of it."""

import math
from collections.abc import Callable

import jax
from jax.extend import core

from stunet import configs
from stunet.train import pieces
from stunet.train.state import abstract_arguments, make_network


def model_flops(config: configs.Config) -> int:
    """Operations that a step asks for: forward, and twice as many backward; where parameters are
    frozen, as many."""
    in_frozen = 0
    if config.freeze != "none" or config.lora.rank:  # Else none are, and the trace is saved.
        frozen = [piece for piece in pieces.find(config, 1) if not piece.trained]
        in_frozen = sum(len(piece.calls) * of_piece(piece) for piece in frozen)
    return config.train.batch_size * (3 * forward_flops(config) - in_frozen)


def sampling_flops(config: configs.Config, clips: int = 1) -> int:
    """Operations that sampling asks for, by the settings of `config.sample`.

    Guidance runs the network twice in a step, with the caption and without.

    Args:
        config: of the network.
        clips: of the config's own length; of a windowed cascade, `cascade.count_windows` for each
            whole clip.
    """
    settings = config.sample
    runs = 1 if settings.guidance_scale in (0, 1) else 2
    return clips * settings.steps * runs * forward_flops(config)


def forward_flops(config: configs.Config) -> int:
    """Operations of the network for one clip."""
    network, arguments = make_network(config), abstract_arguments(config, 1)
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    return count(network.apply, params, *arguments)


def of_piece(piece: pieces.Piece) -> int:
    """Operations of the forward pass of one call."""
    params = pieces.abstract_init(piece.module, piece.arguments)
    return count(piece.module.apply, params, *piece.arguments)


def count(function: Callable, *arguments) -> int:
    """Operations of all matrix products and convolutions in `function(*arguments)`.

    A multiplication and an addition are two. Arguments may be shapes (`jax.ShapeDtypeStruct`).
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
        return 2 * equation.outvars[0].aval.size * per_output
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
