"""The digest of an array notices every change of a bit, and depends on nothing but the array."""

import functools
import json
import subprocess
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny

from stunet.train.saved import digests

RNG = np.random.default_rng(0)


def words(array: np.ndarray) -> list[int]:
    """Returns the bits of each element as a number, in row-major order."""
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]
    return np.ascontiguousarray(array).view(kind).ravel().tolist()


def murmur(word: int) -> int:
    """The finaliser of MurmurHash3_x86_32, as its reference code writes it."""
    word ^= word >> 16
    word = word * 0x85EBCA6B % 2**32
    word ^= word >> 13
    word = word * 0xC2B2AE35 % 2**32
    return word ^ word >> 16


def by_hand(array: np.ndarray) -> str:
    hashes = (murmur((w + i * 0x9E3779B9) % 2**32) for i, w in enumerate(words(array)))
    return f"{sum(hashes) % 2**32:08x}"


def of(array) -> str:
    return digests.of_arrays({"a": jnp.asarray(array)})["a"]


ARRAYS = {
    "scalar": np.float32(3),
    "float32": RNG.standard_normal((3, 4, 5), np.float32),
    "bfloat16": RNG.standard_normal((7, 3)).astype(ml_dtypes.bfloat16),
    "int32": RNG.integers(-9, 9, (5,), np.int32),
    "bool": RNG.integers(0, 2, (6, 2)).astype(bool),
    "empty": np.zeros((0, 3), np.float32),
    "special": np.float32([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_it_is_the_sum_of_hashes(array):
    assert of(array) == by_hand(np.asarray(array))


def flipped(array: np.ndarray, *bits: int) -> np.ndarray:
    data = np.unpackbits(array.view(np.uint8).ravel())
    data[list(bits)] ^= 1
    return np.packbits(data).view(array.dtype).reshape(array.shape)


@functools.cache
def clean() -> str:
    return of(ARRAYS["float32"])


def test_every_flipped_bit_changes_it():
    array = ARRAYS["float32"]
    assert all(of(flipped(array, bit)) != clean() for bit in range(8 * array.nbytes))


def test_several_flipped_bits_change_it():
    """Signs above all: their changes would cancel in a sum of the bits themselves."""
    array = ARRAYS["float32"]
    signs = 24 + 32 * np.arange(array.size)  # Little-endian: the sign is in the fourth byte.
    for _ in range(300):
        bits = RNG.choice(signs, 2, replace=False)
        assert of(flipped(array, *bits)) != clean(), bits
        bits = RNG.choice(8 * array.nbytes, RNG.integers(2, 9), replace=False)
        assert of(flipped(array, *bits)) != clean(), bits


def test_order_and_sign_of_zero_count():
    array = ARRAYS["float32"]
    assert of(array[::-1]) != clean()
    assert of(np.zeros(4, np.float32)) != of(-np.zeros(4, np.float32))
    # The shape is not part of the digest: the reader is told it by the network.
    assert of(array.reshape(12, 5)) == clean()


def test_arrays_are_named_by_their_path():
    found = digests.of_arrays({"a": ({"b": jnp.ones(2)}, jnp.zeros(1)), "none": {}})
    assert found.keys() == {"a/0/b", "a/1"}


SPLIT = """
import json
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from stunet.train.saved import digests

x = np.random.default_rng(0).standard_normal((8, 16, 3), np.float32)
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
specs = [P(), P("a"), P("b"), P(None, "b"), P("a", "b"), P(("a", "b")), P("b", "a", None)]
split = {str(s): jax.device_put(x, NamedSharding(mesh, s)) for s in specs}

# The second copy of one quarter of the array has another bit than the first.
sharding = NamedSharding(mesh, P("b"))
places = sharding.addressable_devices_indices_map(x.shape)
shards = [np.array(x[place]) for place in places.values()]
shards[-1][0, 0, 0] *= -1
shards = [jax.device_put(s, d) for s, d in zip(shards, places)]
split["copies"] = jax.make_array_from_single_device_arrays(x.shape, sharding, shards)
print(json.dumps(digests.of_arrays(split | {"whole": x})))
"""


def test_it_does_not_depend_on_how_the_array_is_split():
    command = [sys.executable, "-c", SPLIT]
    done = subprocess.run(command, env=tiny.environment(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, copies = found.pop("whole"), found.pop("copies")
    assert set(found.values()) == {whole}
    assert whole in copies.split("|")
    assert len(copies.split("|")) == 2
