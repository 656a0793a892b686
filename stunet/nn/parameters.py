"""The tree of a network's parameters: names in files, stacked layers, spatial and temporal parts.

A parameter's path is a tuple of the names of the modules around it and its own name, such as
`("down_0_layer_1", "resnet", "conv1", "kernel")`. Its name in files joins the path by dots:
`down_0_layer_1.resnet.conv1.kernel`.

With `scan_layers`, layers of one level are stacked if their parameters have the same shapes. Each
parameter is then one array, whose first axis runs over these layers. For instance, `down_0_layers`
holds layers 1, 2, ... of level 0. In files each layer always has its own arrays, under the names
that they have in a network without `scan_layers`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

# Parameter that holds the token states of an empty caption.
EMPTY_TEXT = "text_empty"

_LAYER, _STACK = "_layer_", "_layers"
# Modules of attention that take token states, by themselves or within the attention of this name.
_OF_TEXT = ("norm_cross", "add_k_proj", "add_v_proj")
_TEXT_ATTENTION, _KEYS_AND_VALUES = "attn2", ("to_k", "to_v")


def is_temporal(path: Sequence[str]) -> bool:
    """Returns True if inflation adds the module or parameter at `path`.

    Inflation adds the inflation blocks and temporal resizing. All other modules and parameters
    belong to the text-to-image network.
    """
    return any(name.startswith("temporal") or name.endswith("_resize_time") for name in path)


def is_text(path: Sequence[str]) -> bool:
    """Returns True if the module or parameter at `path` takes the caption's token states.

    These are the projection and the pooling of the states, and their keys and values in attention.
    """
    names = _OF_TEXT + (_KEYS_AND_VALUES if _TEXT_ATTENTION in path else ())
    return any(name.startswith("text_") or name in names for name in path)


def is_stacked(path: Sequence[str]) -> bool:
    """Returns True if the parameter at `path` is stacked: its first axis runs over layers."""
    return path[0].endswith(_STACK)


def equal_layers(count: int, has_skips: bool) -> range:
    """Returns the layers of a level that `scan_layers` stacks; empty if there are fewer than two.

    Stacked layers must have inputs of the same width. The input of a level's first layer has
    another width than the inputs of later layers. On the way up, the input of the last layer also
    differs, because its skip connection carries the level's input from the way down.

    Args:
        count: number of layers in the level.
        has_skips: True for the layers on the way up, which have skip connections.
    """
    layers = range(1, count - has_skips)
    return layers if len(layers) > 1 else range(0)


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks the parameters of a network, as the same network with `scan_layers` needs them."""
    stacked = {name: leaf for name, leaf in params.items() if _LAYER not in name}
    for level in {name.rsplit(_LAYER, 1)[0] for name in params if _LAYER in name}:
        count = sum(name.startswith(level + _LAYER) for name in params)
        layers = [params[f"{level}{_LAYER}{i}"] for i in range(count)]
        equal = equal_layers(count, has_skips=level.startswith("up_"))
        for i in range(count):
            if i not in equal:
                stacked[f"{level}{_LAYER}{i}"] = layers[i]
        if equal:
            stacked[level + _STACK] = jax.tree.map(
                lambda *a: jnp.stack(a), *(layers[i] for i in equal)
            )
    return stacked


def names(path: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
    """Returns the names that the parameter at `path` has in files.

    A stacked parameter has one name for each of its layers; any other parameter has one name.

    Args:
        path: path of the parameter.
        shape: shape of the parameter; its first extent is the number of layers if it is stacked.
    """
    first, *rest = path
    if not is_stacked(path):
        return (".".join(path),)
    level = first.removesuffix(_STACK)
    # Layer 0 of a level is never in the stack (`equal_layers`).
    return tuple(".".join([f"{level}{_LAYER}{1 + i}", *rest]) for i in range(shape[0]))


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its name in files.

    The parameters may be abstract, as `jax.eval_shape` returns them.
    """
    return {
        name: tuple(leaf.shape[1:] if is_stacked(path) else leaf.shape)
        for path, leaf in flatten_dict(params).items()
        for name in names(path, leaf.shape)
    }


def flatten(params: Any) -> dict[str, Any]:
    """Converts a tree of parameters to a dict of arrays by their names in files."""
    named = {}
    for path, leaf in flatten_dict(params).items():
        layers = list(leaf) if is_stacked(path) else [leaf]
        named |= zip(names(path, leaf.shape), layers, strict=True)
    return named


def unflatten(named: Mapping[str, Any], like: Any) -> Any:
    """Builds a tree of parameters from arrays by their names in files. Inverts `flatten`.

    Args:
        named: arrays by name. Names that `like` does not have are ignored.
        like: a tree with the structure and shapes of the result; may be abstract.

    Raises:
        KeyError: `named` lacks an array of `like`.
    """
    params = {}
    for path, leaf in flatten_dict(like).items():
        layers = [named[name] for name in names(path, leaf.shape)]
        params[path] = jnp.stack(layers) if is_stacked(path) else layers[0]
    return unflatten_dict(params)
