"""Names of TPU slices are read as Google Cloud documents them, and other names are refused."""

import importlib.util
import math

import pytest

from stunet.errors import UserError
from stunet.parallel.mesh import count_slices
from stunet.parallel.peaks import BFLOAT16
from stunet.plan import chips, tpus
from stunet.plan.tpus import to_shape

# cloud.google.com/tpu/docs/v4, /v5p, /v5e, /v6e and /tpu7x: names and shapes.
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
    "tpu7x-8": "tpu7x:2x2x1",
    "tpu7x-128": "tpu7x:4x4x4",
    "tpu7x-512": "tpu7x:4x8x8",
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
        ("v5p-7", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, 512, ..."),
        ("v4-100", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, 512, ..."),
        ("v4-0", "counts TensorCores: 8, 16, 32, 64, 128, 256, 384, 512, ..."),
    ],
)
def test_a_slice_that_does_not_exist_gets_the_sizes_that_do(name, sentence):
    with pytest.raises(UserError, match=f"--topology is '{name}', and there is no such slice"):
        to_shape(name)
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
        to_shape(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("v5e:3x5", "v5e:2x4 or v5e:4x4"),
        ("v5e:4x2", "v5e:2x4"),
        ("v6e:32x32", "v6e:16x16"),
        ("v5p:8x4x4", "v5p:4x4x8"),
        ("v5p:4x4", "v5p:2x2x4"),
        ("v5p:4x4x5", "v5p:4x4x4 or v5p:4x4x8"),
        ("v5p:0x4x4", "v5p:2x2x1"),
        ("tpu7x:1x1x1", "tpu7x:2x2x1"),
    ],
)
def test_a_shape_that_does_not_exist_gets_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"no such slice; the nearest is {nearest}$"):
        chips.find(name, estimate=True)


@pytest.mark.parametrize("name", DOCUMENTED.values())
def test_documented_shapes_exist(name):
    assert chips.find(name, estimate=True).count == chips.TPUS[name.split(":")[0]].per_chip * (
        math.prod(map(int, name.split(":")[1].split("x")))
    )


@pytest.mark.parametrize("generation", tpus.GENERATIONS.values(), ids=tpus.GENERATIONS)
def test_a_clock_and_a_peak_make_whole_matrix_units(generation):
    """A matrix unit multiplies and adds 128 x 128 or 256 x 256 numbers in a cycle."""
    operations = BFLOAT16[generation.kind] / generation.hertz
    units = operations / (2 * 128**2)
    assert units == pytest.approx(round(units), rel=0.01)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the extra [tpu]")
@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("key", tpus.GENERATIONS)
def test_the_compiler_has_the_devices_that_an_estimate_counts(key, slices):
    """The compiler knows every generation, in one slice and in several."""
    for shape in ((1, 1), (2, 4)) if key in ("v5e", "v6e") else ((2, 2, 1), (4, 4, 4)):
        name = f"{key}:{'x'.join(map(str, shape))}"
        found, estimated = chips.find(name, slices), chips.find(name, slices, estimate=True)
        assert len(found.devices) == found.count == estimated.count
        assert {device.device_kind for device in found.devices} == {tpus.GENERATIONS[key].kind}
        assert count_slices(found.devices) == slices
