"""Where arrays lie on the mesh, said by logical axis names, which `parallel/` maps to mesh axes."""

import math

import flax.linen as nn
import jax
from jaxtyping import Array


def partition_spec(names, shape, mesh_shape) -> jax.sharding.PartitionSpec:
    """The partition of an array under the current rules, left whole along axes that do not divide.

    Args:
        names: a logical name or None for each axis.
        shape: the array's.
        mesh_shape: extent by mesh axis name.
    """
    entries = []
    for axes, extent in zip(nn.logical_to_mesh_axes(names), shape, strict=True):
        axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
        divides = extent % math.prod(mesh_shape[a] for a in axes) == 0
        entries.append(axes if axes and divides else None)
    return jax.sharding.PartitionSpec(*entries)


def is_split(name: str, extent: int) -> bool:
    """Whether a logical axis of this extent is split on the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not nn.get_logical_axis_rules():
        return False
    spec = partition_spec((name,), (extent,), mesh.shape)
    return jax.sharding.NamedSharding(mesh, spec).shard_shape((extent,)) != (extent,)


def constrain(x: Array, *names: str | None) -> Array:
    """States how `x` lies on the mesh; does nothing where there is no mesh or no rule."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
        return x
    spec = partition_spec(names, x.shape, mesh.shape)
    return jax.lax.with_sharding_constraint(x, spec)
