"""Translates the names that Google Cloud gives to TPU slices into generation and shape.

For example, `v5p-128` is `v5p:4x4x4`. For v5e and v6e, the number in a name counts chips. For v4
and v5p, it counts TensorCores, and each chip has two (cloud.google.com/tpu/docs/v4, /v5p, /v5e and
/v6e).
"""

import itertools
import re

from stunet.errors import UserError

# Generation in a name -> generation here, units that the number counts, units in each chip, and
# dimensions of a shape. The accelerator types of v5e are called v5litepod.
_GENERATIONS = {
    "v4": ("v4", "TensorCores", 2, 3),
    "v5p": ("v5p", "TensorCores", 2, 3),
    "v5e": ("v5e", "chips", 1, 2),
    "v5litepod": ("v5e", "chips", 1, 2),
    "v6e": ("v6e", "chips", 1, 2),
}

# Chips -> shape: all slices of v5e and v6e, and the slices of v4 and v5p below a cube of 64 chips.
_FLAT = {
    **{1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4"},
    **{32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
}
_BELOW_A_CUBE = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4"}
_CUBE = 4**3

FORMS = (
    "the name that Google Cloud gives to TPUs, such as v5e-16, v6e-64 or v5p-128, their generation "
    "(v4, v5e, v5p, v6e) and shape, such as v5p:4x4x4"
)


def to_shape(name: str) -> str:
    """Translates a name such as `v5p-128` into a generation and a shape, such as `v5p:4x4x4`.

    Args:
        name: name of a topology. A name in another form, such as `v5p:4x4x4` or `local`, is
            returned unchanged.

    Raises:
        UserError: there is no slice with this number of chips.
    """
    match = re.fullmatch(r"(v\d+\w*)-(\d+)", name)
    if not match or match[1] not in _GENERATIONS:
        return name
    generation, units, units_in_chip, dimensions = _GENERATIONS[match[1]]
    chips, rest = divmod(int(match[2]), units_in_chip)
    shape = None if rest else _FLAT.get(chips) if dimensions == 2 else _solid(chips)
    if shape is None:
        sizes = sorted(_FLAT if dimensions == 2 else [*_BELOW_A_CUBE, _CUBE, 2 * _CUBE, 3 * _CUBE])
        more = "" if dimensions == 2 else ", ..."
        raise UserError(
            f"--topology is {name!r}, and there is no such slice; the number counts {units}: "
            f"{', '.join(str(size * units_in_chip) for size in sizes)}{more}"
        )
    return f"{generation}:{shape}"


def _solid(chips: int) -> str | None:
    """Returns the shape of a slice of v4 or v5p, or None if there is no such slice.

    Several shapes can have the same number of chips. For a name without a shape, Google Cloud takes
    the one that is most like a cube (cloud.google.com/tpu/docs/types-topologies).
    """
    if chips in _BELOW_A_CUBE or chips < _CUBE or chips % _CUBE:
        return _BELOW_A_CUBE.get(chips)
    cubes = chips // _CUBE
    divisors = [n for n in range(1, cubes + 1) if cubes % n == 0]
    shapes = [
        (a, b, cubes // (a * b))
        for a, b in itertools.combinations_with_replacement(divisors, 2)
        if cubes % (a * b) == 0 and cubes // (a * b) >= b
    ]
    # A cube has the least surface.
    sides = min(shapes, key=lambda s: s[0] * s[1] + s[1] * s[2] + s[0] * s[2])
    return "x".join(str(4 * side) for side in sides)
