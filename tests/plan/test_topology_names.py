"""Names of TPU slices: those of Google Cloud's documentation, and what is none."""

import math

import pytest

from stunet.errors import UserError
from stunet.plan.topology_names import to_shape

# cloud.google.com/tpu/docs/v4, /v5p, /v5e and /v6e: names and shapes.
DOCUMENTED = {
    "v4-8": "v4:2x2x1",
    "v4-32": "v4:2x2x4",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v5p-64": "v5p:2x4x4",
    "v5p-128": "v5p:4x4x4",
    "v5p-256": "v5p:4x4x8",
    "v5p-512": "v5p:4x8x8",
    "v5p-1024": "v5p:8x8x8",
    "v5p-2048": "v5p:8x8x16",
    "v5p-4096": "v5p:8x16x16",
    "v5p-8192": "v5p:16x16x16",
    "v5p-12288": "v5p:16x16x24",
    "v5e-1": "v5e:1x1",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5litepod-32": "v5e:4x8",
    "v6e-64": "v6e:8x8",
    "v6e-128": "v6e:8x16",
    "v6e-256": "v6e:16x16",
}


@pytest.mark.parametrize(("name", "expected"), DOCUMENTED.items())
def test_documented_names(name, expected):
    assert to_shape(name) == expected


@pytest.mark.parametrize("cubes", range(1, 97))
def test_a_slice_of_cubes_has_their_chips_and_no_side_that_cuts_one(cubes):
    """A v5p name counts TensorCores, of which each chip has two."""
    sides = [int(n) for n in to_shape(f"v5p-{2 * 64 * cubes}").removeprefix("v5p:").split("x")]
    assert math.prod(sides) == 64 * cubes
    assert sides == sorted(sides)
    assert all(side % 4 == 0 for side in sides)


@pytest.mark.parametrize("name", ["v5p:4x4x4", "local", "a100-80gb:1", "v9-8", "v5e-", "v5e:16"])
def test_other_names_are_returned_as_they_are(name):
    assert to_shape(name) == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5e-17", "counts chips: 1, 4, 8, 16, 32, 64, 128, 256"),
        ("v5e-512", "counts chips: 1, 4, 8, 16, 32, 64, 128, 256"),
        ("v5p-7", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, ..."),
        ("v4-100", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, ..."),
        ("v4-0", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, ..."),
    ],
)
def test_a_slice_that_does_not_exist_gets_the_sizes_that_do(name, sentence):
    with pytest.raises(UserError, match=f"--topology is '{name}', and there is no such slice"):
        to_shape(name)
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
        to_shape(name)
