"""Finds the distinct blocks of a network: residual blocks, attention, inflation, resizing.

Several equal blocks count as one block if their inputs have the same shape, and if all of them are
trained or all are frozen.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from stunet.nn.stunet import Layer, STUNet
from stunet.nn.transformer import SpatialTransformer
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.optim.trainable import Trainable

# Modules that consist of blocks.
_CONTAINERS = (STUNet, Layer, SpatialTransformer)


@dataclasses.dataclass(frozen=True)
class Piece:
    """Describes one block of the network and how it is called.

    Attributes:
        name: kind of the block and shape of its input, to show to users.
        module: Flax module of the block, detached from its parent module.
        arguments: shapes and dtypes of the block's arguments; None for an argument that is not
            passed.
        calls: names of all equal blocks of the network, in the order in which they are called.
        trained: True if the block's parameters are trained, False if they are frozen.
    """

    name: str
    module: nn.Module
    arguments: tuple[Any, ...]
    calls: tuple[str, ...]
    trained: bool


def find(denoiser: Denoiser, batch: int) -> list[Piece]:
    """Returns the distinct blocks of the network for `batch` clips, in the order of their calls."""
    network = denoiser.network_of_clips
    return find_in(network, denoiser.trainable, denoiser.abstract_arguments(batch))


def find_in(network: STUNet, trainable: Trainable, arguments: tuple[Any, ...]) -> list[Piece]:
    """Returns the distinct blocks of a network that is called with `arguments`.

    The blocks are in the order of their calls.

    Args:
        network: the Flax module.
        trainable: which of the network's parameters are trained.
        arguments: shapes and dtypes of the network's arguments.
    """
    network = network.clone(remat="none", scan_layers=False)
    calls: dict[tuple, tuple[nn.Module, tuple, list[str], bool]] = {}
    inside = []

    def record(call, args, kwargs, context):
        module = context.module
        if inside or isinstance(module, _CONTAINERS) or context.method_name != "__call__":
            return call(*args, **kwargs)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
        trained = trainable.includes(module.path)
        key = (identity(module), repr(shapes), trained)
        alone = module.clone(parent=None, name=None)
        calls.setdefault(key, (alone, shapes, [], trained))[2].append("/".join(module.path))
        inside.append(module)
        try:
            return call(*args, **kwargs)
        finally:
            inside.pop()

    with nn.intercept_methods(record):
        abstract_init(network, arguments)
    return [
        Piece(_name(module, shapes), module, shapes, tuple(paths), trained)
        for module, shapes, paths, trained in calls.values()
    ]


def identity(module: nn.Module) -> tuple[type, str]:
    """Returns the cache key of a module: its type and fields, without its name or parent."""
    fields = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name not in ("parent", "name")
    }
    return type(module), repr(fields)


def abstract_init(module: nn.Module, arguments: tuple) -> Any:
    """Returns the shapes of the module's parameters, boxed with the names of their axes."""
    # With rules, flax would constrain each parameter, also where extents do not divide.
    with nn.logical_axis_rules(()):
        return jax.eval_shape(lambda *args: module.init(jax.random.key(0), *args), *arguments)


def _name(module: nn.Module, arguments: tuple) -> str:
    extents = "x".join(map(str, arguments[0].shape[1:]))
    features, resample = (getattr(module, key, None) for key in ("features", "resample"))
    way = f" {resample}" if resample not in (None, "none") else ""
    return f"{type(module).__name__}{way} {extents}" + (f" -> {features}" if features else "")
