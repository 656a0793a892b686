"""The names that a network's parameters have in files: `down_0_layer_1.resnet.conv1.kernel`.

They are the modules' names, joined by dots. How a network is compiled does not change them:
`scan_layers` stacks the parameters of equal layers, and in a file each layer has its own, under the
name that it has in a network without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

_STACK = "_layers"


def is_stack(path: Sequence[str]) -> bool:
    """Whether the parameter at a path is that of several layers, along its first axis."""
    return path[0].endswith(_STACK)


def names(path: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
    """What the parameter at a path is called: one name, or that of each layer in its stack."""
    first, *rest = path
    if not is_stack(path):
        return (".".join(path),)
    layer = first.removesuffix("s")
    # A level's first layer is never in the stack: its input has another width.
    return tuple(".".join([f"{layer}_{1 + i}", *rest]) for i in range(shape[0]))


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each named array; `params` may be abstract."""
    return {
        name: tuple(leaf.shape[1:] if is_stack(path) else leaf.shape)
        for path, leaf in flatten_dict(params).items()
        for name in names(path, leaf.shape)
    }


def flatten(params: Any) -> dict[str, Any]:
    """The tree of a network's parameters -> its arrays by name."""
    named = {}
    for path, leaf in flatten_dict(params).items():
        layers = list(leaf) if is_stack(path) else [leaf]
        named |= zip(names(path, leaf.shape), layers, strict=True)
    return named


def unflatten(named: Mapping[str, Any], like: Any) -> Any:
    """The inverse of `flatten`.

    Args:
        named: at least the arrays that are asked for.
        like: a tree as it is wanted; may be abstract.
    """
    params = {}
    for path, leaf in flatten_dict(like).items():
        layers = [named[name] for name in names(path, leaf.shape)]
        params[path] = jnp.stack(layers) if is_stack(path) else layers[0]
    return unflatten_dict(params)
