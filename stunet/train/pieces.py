"""The network's distinct pieces: its blocks (a residual block, an attention, an inflation, a
resizing), as they are called, each once however often."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from stunet import configs
from stunet.nn.stunet import Layer, STUNet
from stunet.train.state import abstract_arguments, is_trained, make_network


@dataclasses.dataclass(frozen=True)
class Piece:
    """One block of the network, as it is called.

    Attributes:
        name: of its kind and extents, for people.
        module: the block by itself.
        arguments: shapes and dtypes that it is called with; None for those that are left out.
        calls: names of all blocks of the network that are equal to this one, in order.
        trained: whether its parameters are, or are frozen.
    """

    name: str
    module: nn.Module
    arguments: tuple[Any, ...]
    calls: tuple[str, ...]
    trained: bool


def find(config: configs.Config, batch: int) -> list[Piece]:
    """The distinct pieces of the network on a batch of so many clips, in order of their first
    call."""
    network = make_network(config).clone(remat="none", scan_layers=False)
    calls: dict[tuple, tuple[nn.Module, tuple, list[str], bool]] = {}
    inside = []

    def record(call, args, kwargs, context):
        module = context.module
        if inside or isinstance(module, (STUNet, Layer)) or context.method_name != "__call__":
            return call(*args, **kwargs)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
        trained = is_trained(config, module.path)
        key = (identity(module), repr(shapes), trained)
        alone = module.clone(parent=None, name=None)
        calls.setdefault(key, (alone, shapes, [], trained))[2].append("/".join(module.path))
        inside.append(module)
        try:
            return call(*args, **kwargs)
        finally:
            inside.pop()

    with nn.intercept_methods(record):
        abstract_init(network, abstract_arguments(config, batch))
    return [
        Piece(_name(module, shapes), module, shapes, tuple(paths), trained)
        for module, shapes, paths, trained in calls.values()
    ]


def identity(module: nn.Module) -> tuple[type, str]:
    """What the module computes, whatever it is called with and wherever it stands."""
    fields = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name not in ("parent", "name")
    }
    return type(module), repr(fields)


def abstract_init(module: nn.Module, arguments: tuple) -> Any:
    """Shapes of the module's parameters, boxed with the names of their axes."""
    # Without rules: flax would constrain each parameter, and know nothing of extents that do not
    # divide.
    with nn.logical_axis_rules(()):
        return jax.eval_shape(lambda *args: module.init(jax.random.key(0), *args), *arguments)


def _name(module: nn.Module, arguments: tuple) -> str:
    extents = "x".join(map(str, arguments[0].shape[1:]))
    features, resample = (getattr(module, key, None) for key in ("features", "resample"))
    way = f" {resample}" if resample not in (None, "none") else ""
    return f"{type(module).__name__}{way} {extents}" + (f" -> {features}" if features else "")
