"""Places arrays on the mesh by logical axis names, which `parallel/` maps to mesh axes.

`jax.set_mesh` sets the mesh, and `flax.linen.logical_axis_rules` sets the rules that map the names.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array


def partition_spec(
    names: Sequence[str | None], shape: Sequence[int], mesh_shape: Mapping[str, int]
) -> jax.sharding.PartitionSpec:
    """Returns how the current `flax.linen.logical_axis_rules` split an array over a mesh.

    An axis that does not split into equal parts stays unsplit.

    Args:
        names: logical name of each axis, or None for an axis that is never split.
        shape: shape of the array.
        mesh_shape: extent of each mesh axis, by name.
    """
    entries = []
    for axes, extent in zip(nn.logical_to_mesh_axes(names), shape, strict=True):
        axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
        divides = extent % math.prod(mesh_shape[a] for a in axes) == 0
        entries.append(axes if axes and divides else None)
    return jax.sharding.PartitionSpec(*entries)


def is_split(name: str, extent: int) -> bool:
    """Returns True if the current mesh splits an axis of this logical name and extent."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not nn.get_logical_axis_rules():
        return False
    spec = partition_spec((name,), (extent,), mesh.shape)
    return jax.sharding.NamedSharding(mesh, spec).shard_shape((extent,)) != (extent,)


def none_in_use() -> contextlib.AbstractContextManager:
    """Context manager in which no mesh is in use.

    In it, a process computes on devices of its own without the others.
    """
    return jax.set_mesh(jax.sharding.Mesh(np.empty((), object), ()))


def constrain(x: Array, *names: str | None) -> Array:
    """Constrains the sharding of `x`; without a mesh or rules, returns `x` as it is.

    Args:
        x: any array.
        names: logical name of each axis, or None for an axis that is never split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
        return x
    spec = partition_spec(names, x.shape, mesh.shape)
    return jax.lax.with_sharding_constraint(x, spec)
