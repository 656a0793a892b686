"""Makes the device mesh, maps logical axes to it, and places batches and training states on it."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from stunet.errors import UserError
from stunet.nn.sharding import partition_spec

AXES = ("slice", "data", "fsdp", "context", "tensor")
BATCH_AXES = ("slice", "data", "fsdp")


# Logical axis -> mesh axes. Names that are not listed are never split.
RULES = (
    # Activations; `context` splits the rows or the frames (`use`).
    ("batch", BATCH_AXES),
    ("features", "tensor"),
    # Weights as they are stored; where they are used, `in_channels` is whole (`nn.layers`).
    ("in_channels", "fsdp"),
    ("out_channels", "tensor"),
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrangement of devices that a run asks for, as the extent of each mesh axis.

    One extent may be -1: the number of devices divided by the product of the other extents. The
    batch is split into slice * data * fsdp parts.

    Attributes:
        slice: number of parts to split the batch into across the data-centre network; a multiple of
            the number of TPU slices.
        data: number of parts to split the batch into.
        fsdp: number of parts to split the batch and the stored weights into.
        context: number of parts to split each clip into, along `context_axis`.
        tensor: number of parts to split the features of weights and activations into.
        context_axis: axis of clips that `context` splits, "rows" or "frames".
    """

    slice: int = 1
    data: int = -1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    context_axis: str = "rows"


def make_mesh(layout: Layout, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arranges devices into a mesh.

    Devices of several TPU slices are arranged so that the axis `slice` alone crosses the
    data-centre network.

    Args:
        layout: extent of each axis.
        devices: the devices; None takes all devices of JAX.

    Raises:
        UserError: the extents do not multiply to the number of devices, or `slice` is not a
            multiple of the number of TPU slices.
    """
    devices = jax.devices() if devices is None else devices
    slices = count_slices(devices)
    shape = _shape(layout, len(devices), slices)
    # An axis of the torus may be split between two of ours: 16x16 chips as fsdp 64 x context 4.
    if slices == 1:
        arranged = mesh_utils.create_device_mesh(
            tuple(shape.values()), devices, allow_split_physical_axes=True
        )
    else:
        within = shape | {"slice": shape["slice"] // slices}
        across = dict.fromkeys(AXES, 1) | {"slice": slices}
        arranged = mesh_utils.create_hybrid_device_mesh(
            tuple(within.values()),
            tuple(across.values()),
            devices,
            allow_split_physical_axes=True,
        )
    # Auto axes: the compiler places what the rules leave open.
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract_mesh(layout: Layout, devices: int, slices: int = 1) -> AbstractMesh:
    """Returns a mesh for `devices` devices that this machine need not have.

    Raises:
        UserError: for the same reasons as in `make_mesh`.
    """
    shape = _shape(layout, devices, slices)
    return AbstractMesh(tuple(shape.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _shape(layout: Layout, devices: int, slices: int) -> dict[str, int]:
    asked = {axis: getattr(layout, axis) for axis in AXES}
    fixed = math.prod(extent for extent in asked.values() if extent != -1)
    shape = {axis: devices // fixed if e == -1 else e for axis, e in asked.items()}
    if math.prod(shape.values()) == devices and shape["slice"] % slices == 0:
        return shape
    extents = " x ".join(f"{axis} {extent}" for axis, extent in asked.items())
    wrong = f"which does not fit {devices} devices"
    if math.prod(shape.values()) == devices:
        wrong = f"but the devices are {slices} slices, and mesh.slice must be a multiple of that, "
        wrong += "so that no other axis crosses the data-centre network"
    arguments = " ".join(
        f"--config.mesh.{axis}={extent}"
        for axis, extent in _nearest_extents(asked, devices, slices).items()
    )
    raise UserError(f"mesh is {extents}, {wrong}; the nearest mesh that fits: {arguments}")


def _nearest_extents(asked: Mapping[str, int], devices: int, slices: int) -> dict[str, int]:
    """Returns the changes that make a mesh fit the devices, as new extents by axis.

    As few axes as possible change, and these by the smallest factor. If that leaves a choice,
    `data` changes first, then `fsdp`, `context`, `tensor` and `slice`, so that clips stay split as
    they are.

    Args:
        asked: extent of each axis in the mesh that does not fit. An axis with -1 takes
            the devices that are left.
        devices: number of devices.
        slices: number of TPU slices.
    """

    def split(number: int, axes: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yields all ways to write `number` as a product of extents."""
        if len(axes) == 1:
            yield {axes[0]: number}
            return
        for extent in (n for n in range(1, number + 1) if number % n == 0):
            for rest in split(number // extent, axes[1:]):
                yield {axes[0]: extent} | rest

    def changes(mesh: Mapping[str, int]) -> dict[str, int]:
        return {axis: mesh[axis] for axis in AXES if asked[axis] not in (-1, mesh[axis])}

    def distance(mesh: Mapping[str, int]):
        changed = changes(mesh)
        factors = sum(abs(math.log(n / max(asked[axis], 1))) for axis, n in changed.items())
        kept = [axis in changed for axis in ("slice", "tensor", "context", "fsdp", "data")]
        return len(changed), round(factors, 6), kept

    fitting = (mesh for mesh in split(devices, AXES) if mesh["slice"] % slices == 0)
    return changes(min(fitting, key=distance))


def count_slices(devices: Sequence[jax.Device]) -> int:
    """Counts the TPU slices that the devices belong to; 1 for devices that are not TPUs.

    GPUs have a `slice_index` too, which is the number of their host. This index is ignored, because
    `jax.devices()` lists GPUs host by host, and any mesh axis may cross the network between hosts.
    """
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def batch_ways(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts that `mesh` splits a batch into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(
    batch_size: int, accumulate: int, mesh: Mesh | AbstractMesh, what: str = "train.batch_size"
) -> None:
    """Checks that the microbatches of a batch split evenly over the mesh.

    Args:
        batch_size: clips in a batch, over all devices.
        accumulate: number of microbatches in a batch.
        mesh: the devices.
        what: what the batch size is called, for messages.

    Raises:
        UserError: the microbatches do not split evenly.
    """
    ways = batch_ways(mesh)
    if batch_size % (ways * accumulate):
        raise UserError(
            f"{what} is {batch_size}, which does not split over "
            f"{ways} devices x train.accumulate {accumulate}; "
            f"make it a multiple of {ways * accumulate}, or split each clip with mesh.context"
        )


@contextlib.contextmanager
def use(mesh: Mesh, context_axis: str = "rows") -> Iterator[None]:
    """Context manager that maps logical axis names to `mesh`.

    Args:
        mesh: the devices.
        context_axis: axis of clips that the mesh axis `context` splits, "rows" or "frames".
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules((*RULES, (context_axis, "context"))):
        yield


def abstract(boxed: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns shapes, dtypes and shardings of a tree whose leaves carry logical axis names.

    A leaf without names is replicated.

    Args:
        boxed: abstract arrays, as `eval_shape` of a module's `init` returns them. A leaf with axis
            names is in one of flax's boxes.
        mesh: the devices.
    """

    def place(leaf):
        value, spec = leaf, PartitionSpec()
        if _is_box(leaf):
            value = leaf.value
            with nn.logical_axis_rules(RULES):
                spec = partition_spec(leaf.names, value.shape, mesh.shape)
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    return jax.tree.map(place, boxed, is_leaf=_is_box)


def derived(make: Callable[[Any], Any], tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns shapes, dtypes and shardings of `make(tree)`, whose arrays are split as in `tree`.

    JAX derives the sharding of each array from those of the arrays that it is computed from. For
    instance, the sum of a kernel over its inputs is split as the kernel's outputs are.

    Args:
        make: function of the tree, in JAX. Nothing is computed.
        tree: abstract arrays with shardings on `mesh`, as `abstract` returns them.
        mesh: the devices.
    """
    # JAX derives shardings only for axes of this kind.
    explicit = mesh.abstract_mesh.update(axis_types=(AxisType.Explicit,) * len(mesh.axis_names))

    def on_explicit(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(explicit, leaf.sharding.spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def on_mesh(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # A constant has no sharding: each device has all of it.
        spec = leaf.sharding.spec if leaf.sharding else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    with jax.sharding.use_abstract_mesh(explicit):
        made = jax.eval_shape(make, jax.tree.map(on_explicit, tree))
    return jax.tree.map(on_mesh, made)


def unbox(boxed: Any) -> Any:
    """Returns the tree without flax's boxes.

    `flax.linen.unbox` does this too, but would also constrain the sharding of each leaf.
    """
    return jax.tree.map(lambda x: x.value if _is_box(x) else x, boxed, is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """Returns the sharding of an array whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Makes one global batch from the rows that each process has read (`hosts.batch_rows`)."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def split_rows(x: np.ndarray, rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Splits the batch `x[rows]` over the mesh; every process has all of `x`."""
    x = np.asarray(x)[rows]
    return jax.make_array_from_callback(x.shape, batch_sharding(mesh), lambda part: x[part])
