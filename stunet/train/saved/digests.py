"""Computes digests of arrays, which show whether an array was read as it was saved.

For each element, the bits and the index are hashed. The digest is the sum of these hashes, modulo
2^32. The hash is a bijection of the bits, so a change in one element always changes the sum.
Changes in several elements leave the sum equal with a probability of about 2^-32, as with CRC-32C.

The sum does not depend on how the array is split over devices or processes. Each device sums the
elements that it holds, and only the total is copied to the host.
"""

import json
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
# Multiplier of an element's place: 2^32 divided by the golden ratio, which spreads neighbours.
_SPREAD = 0x9E3779B9


def of_arrays(tree: Any) -> dict[str, str]:
    """Returns the digest of each array by its path, such as "train/params/conv_in/kernel".

    With several processes, every process must call this function. Each process compares the digests
    that its own devices compute, because a device may hold a wrong copy of an array.

    Args:
        tree: arrays on any devices, with at most 4 bytes per element.

    Returns:
        Eight hexadecimal digits for each array. If copies of an array differ, their digests are
        joined by "|", and the result equals no array's digest.
    """
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree), strict=True)
    sums = []
    for leaf in leaves:
        sums.append(_sum(leaf))
        # Queued programs in which devices wait for each other can block one another for ever: each
        # holds threads of the CPU backend that another one needs.
        if len(sums[-1].devices()) > 1:
            sums[-1].block_until_ready()
    # One call copies all sums at once, and not one after the other.
    copies = jax.device_get([[shard.data for shard in each.addressable_shards] for each in sums])
    return {
        name(path): "|".join(sorted({f"{int(copy):08x}" for copy in each}))
        for path, each in zip(paths, copies, strict=True)
    }


def of_json(value: Any) -> str:
    """Returns the digest of a JSON value."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def name(path: tuple[Any, ...]) -> str:
    """Returns the name of a leaf of a tree: the keys on its path, separated by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    """Returns the digest of an array as a uint32 scalar on all devices that hold the array."""
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, _ in enumerate(x.shape):
        stride = math.prod(x.shape[axis + 1 :]) * _SPREAD % 2**32
        place += lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride)
    return _hash(_bits(x) + place).sum(dtype=jnp.uint32)


def _bits(x: jax.Array) -> jax.Array:
    """Returns the bits of each element as uint32, so that -0.0 and each kind of NaN differ."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    return lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)


def _hash(bits: jax.Array) -> jax.Array:
    """Hashes each element with the final mix of MurmurHash3 (32 bits).

    A change of one input bit changes about half of the output bits. Without the hash, changes of
    sign in two elements would cancel in the sum.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
    return bits ^ (bits >> 16)
