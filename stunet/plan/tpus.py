"""Holds the generations of TPUs, and the names and shapes of the slices that they form.

A generation is one entry of `GENERATIONS`. Everything else follows from it: which names and shapes
`stunet plan` accepts, what its messages say, and how many devices JAX counts.

For example, Google Cloud's name of `v5p:4x4x4` is `v5p-128`. The number in a name counts
TensorCores if a chip has two of them, and chips otherwise (cloud.google.com/tpu/docs/v4,
/v5e, /v5p, /v6e and /tpu7x).
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from stunet.errors import UserError

_CUBE = 4


@dataclasses.dataclass(frozen=True)
class Generation:
    """Describes a generation of TPUs.

    Memory, clock and links are those of one device, as JAX counts devices.

    Attributes:
        kind: JAX's name of a device.
        hbm: bytes of memory that the compiler lets a program use.
        hertz: frequency of the clock whose cycles the compiler counts: the peak divided by the
            operations that the matrix units of a device do in one cycle.
        ici: bytes a second that a device can send over all its links to the rest of its slice. It
            is half of the published bandwidth, which adds up both directions.
        dimensions: number of dimensions of a slice's shape.
        most: number of chips in the largest slice.
        prefix: start of Google Cloud's name of a slice, such as `v5litepod` in `v5litepod-16`.
        cores: number of TensorCores in a chip.
        devices: number of devices that JAX counts for each chip.
        options: options of `jax.experimental.topologies.get_topology_desc`.
    """

    kind: str
    hbm: float
    hertz: float
    ici: float
    dimensions: int
    most: int
    prefix: str
    cores: int = 1
    devices: int = 1
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def counted(self) -> str:
        """Returns what the number in Google Cloud's name of a slice counts."""
        return "TensorCores" if self.cores > 1 else "chips"

    @property
    def example(self) -> str:
        """Returns the shape of a slice of medium size."""
        return "x".join(["4"] * self.dimensions)


# The memory is the limit that the compiler names when a program exceeds it. JAX uses the two cores
# of a v4 or v5p as one device. For v4, the compiler must be asked to do so. A tpu7x has two
# chiplets. Each is a device with half of the chip's memory, and is counted with half of the chip's
# six links.
GENERATIONS = {
    "v4": Generation(
        "TPU v4", 30.75 * 2**30, 1.05e9, 300e9, 3, 4096, "v4", cores=2,
        options={"chip_config_name": "megacore"},
    ),
    "v5e": Generation("TPU v5 lite", 15.75 * 2**30, 1.5e9, 200e9, 2, 256, "v5litepod"),
    "v5p": Generation("TPU v5", 95.74 * 2**30, 1.75e9, 600e9, 3, 6144, "v5p", cores=2),
    "v6e": Generation("TPU v6 lite", 31.25 * 2**30, 1.75e9, 400e9, 2, 256, "v6e"),
    "tpu7x": Generation(
        "TPU7x", 94.75 * 2**30, 2.2e9, 300e9, 3, 9216, "tpu7x", cores=2, devices=2
    ),
}  # fmt: skip

FORMS = (
    "the name that Google Cloud gives to TPUs, such as v5e-16, v6e-64 or v5p-128, their generation "
    f"({', '.join(GENERATIONS)}) and shape, such as v5p:4x4x4"
)

# All shapes of two dimensions, and the shapes of three dimensions that have fewer than 64 chips.
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_BELOW_A_CUBE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


def to_shape(name: str) -> str:
    """Translates a name such as `v5p-128` into a generation and a shape, such as `v5p:4x4x4`.

    Args:
        name: name of a topology. A name in another form, such as `v5p:4x4x4` or `local`, is
            returned unchanged.

    Raises:
        UserError: there is no slice with this number of chips.
    """
    match = re.fullmatch(r"(\w+)-(\d+)", name)
    prefixes = {g.prefix: key for key, g in GENERATIONS.items()} | {key: key for key in GENERATIONS}
    if not match or match[1] not in prefixes:
        return name
    key = prefixes[match[1]]
    generation = GENERATIONS[key]
    chips, rest = divmod(int(match[2]), generation.cores)
    found = [] if rest else [shape for shape in shapes(key) if math.prod(shape) == chips]
    if not found:
        sizes = sorted({math.prod(shape) * generation.cores for shape in shapes(key)})
        raise UserError(
            f"--topology is {name!r}, and there is no such slice; the number counts "
            f"{generation.counted}: {', '.join(map(str, sizes[:8]))}"
            + (", ..." if len(sizes) > 8 else "")
        )
    # For a name without a shape, Google Cloud takes the shape that is most like a cube
    # (cloud.google.com/tpu/docs/types-topologies). A cube has the least surface.
    return f"{key}:{_write(min(found, key=_surface))}"


def check_shape(name: str) -> None:
    """Checks that the slice called `name`, such as `v5p:4x4x4`, exists.

    Raises:
        UserError: there is no such slice. The message names the nearest slices.
    """
    key, _, text = name.partition(":")
    sides = tuple(map(int, text.split("x")))
    if sides in shapes(key):
        return
    near = " or ".join(f"{key}:{_write(shape)}" for shape in nearest(key, sides))
    raise UserError(f"--topology is {name!r}, and there is no such slice; the nearest is {near}")


@functools.cache
def shapes(key: str) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of all slices of a generation, as chips along each dimension."""
    generation = GENERATIONS[key]
    if generation.dimensions == 2:
        return _FLAT
    cubes = generation.most // _CUBE**3
    return (*_BELOW_A_CUBE, *(
        (_CUBE * a, _CUBE * b, _CUBE * c)
        for a in range(1, cubes + 1)
        for b in range(a, cubes // a + 1)
        for c in range(b, cubes // (a * b) + 1)
    ))  # fmt: skip


def nearest(key: str, sides: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the slices that are most like a shape which does not exist.

    If a slice has the same number of chips, only that slice is returned. Otherwise, the next
    smaller slice and the next larger one are returned.
    """
    chips = math.prod(sides)
    sizes = sorted({math.prod(shape) for shape in shapes(key)})
    around = [max((n for n in sizes if n <= chips), default=None)]
    if chips not in sizes:
        around.append(min((n for n in sizes if n > chips), default=None))

    def unlike(shape: tuple[int, ...]) -> float:
        pairs = itertools.zip_longest(sorted(shape)[::-1], sorted(sides)[::-1], fillvalue=1)
        return sum(abs(math.log(a / max(b, 1))) for a, b in pairs)

    return [
        min((shape for shape in shapes(key) if math.prod(shape) == size), key=unlike)
        for size in around
        if size is not None
    ]


def topology_options(name: str, slices: int) -> dict[str, Any]:
    """Returns the options with which JAX describes `slices` slices called `name`."""
    key, _, shape = name.partition(":")
    options = dict(GENERATIONS[key].options)
    if slices > 1:
        options["num_slices"] = slices
    if shape == "1x1":
        # The compiler expects four chips on each host.
        options["chips_per_host_bounds"] = [1, 1, 1]
    return options


def _surface(shape: Iterable[int]) -> int:
    return sum(a * b for a, b in itertools.combinations(shape, 2))


def _write(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
