"""Adam whose two moments take one byte for each element of a kernel.

A moment is stored as a level of 256, and as the largest magnitude in its block. There is one block
for each output feature, so that levels are split over a mesh as the parameters are, and a block's
magnitude as the output features are. Dettmers et al. (arXiv 2110.02861) showed that 8-bit moments
in blocks train as those of 32 bits do. Two choices differ from theirs:

* Levels lie on a fourth power, in place of a table that searches would have to go through. Levels
  of a first moment are 3% apart near the largest magnitude, and 10% near a hundredth of it. Those
  of a second moment are 1.6% and 5% apart.
* A moment between two levels is rounded to one of them at random, in proportion to its distance.
  A moment that changes by less than the distance of two levels in an update thus changes by the
  right amount on average. Rounding to the nearest would keep it as it is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Float32, Int, Int8, UInt8, UInt32

from stunet.nn.lora import is_matrix
from stunet.nn.parameters import is_stacked

_EPSILON = 1e-8

# Parts of the range between 0 and the largest magnitude.
_SIGNED_PARTS = 127
_UNSIGNED_PARTS = 256


class Levels(NamedTuple):
    """Holds a moment in bytes. Its kind of integer says which moment it is.

    Attributes:
        level: -127..127 of a first moment, which is (level / 127)^4 of `largest`, with the sign of
            `level`; 0..255 of a second moment, which is ((level + 1) / 256)^4 of `largest`. That is
            not 0, because updates are divided by its root.
        largest: largest magnitude in each block.
    """

    level: Int8[Array, "*shape"] | UInt8[Array, "*shape"]
    largest: Float32[Array, "*blocks"]


class EightBitAdamState(NamedTuple):
    """Holds the state of `scale_by_adam_8bit`.

    Attributes:
        count: number of updates done.
        mu: first moments: `Levels` of matrices and kernels, and float32 of vectors.
        nu: second moments, in the same way.
    """

    count: Int[Array, ""]
    mu: Any
    nu: Any


def scale_by_adam_8bit(beta1: float, beta2: float) -> optax.GradientTransformation:
    """Makes `optax.scale_by_adam` with moments of kernels in 8 bits.

    Each update is that of the moments before they are rounded.

    Args:
        beta1: decay of the first moment, 0..1.
        beta2: decay of the second moment, 0..1.
    """

    def init(params: Any) -> EightBitAdamState:
        def zeros(dtype: Any) -> Any:
            flat = flatten_dict(params)
            return unflatten_dict({path: _zeros(path, p, dtype) for path, p in flat.items()})

        return EightBitAdamState(jnp.zeros((), jnp.int32), zeros(jnp.int8), zeros(jnp.uint8))

    def update(
        updates: Any, state: EightBitAdamState, params: Any = None
    ) -> tuple[Any, EightBitAdamState]:
        count = optax.safe_increment(state.count)
        stored_mu, stored_nu = flatten_dict(state.mu), flatten_dict(state.nu)
        scaled, mu, nu = {}, {}, {}
        for i, (path, gradient) in enumerate(sorted(flatten_dict(updates).items())):
            # One draw serves both moments: 16 bits for each.
            bits = random_bits(count, i, gradient.shape)
            first = beta1 * _read(path, stored_mu[path]) + (1 - beta1) * gradient
            second = beta2 * _read(path, stored_nu[path]) + (1 - beta2) * gradient**2
            scaled[path] = (first / (1 - beta1**count)) / (
                jnp.sqrt(second / (1 - beta2**count)) + _EPSILON
            )
            mu[path] = _store(path, first, stored_mu[path], bits >> 16)
            nu[path] = _store(path, second, stored_nu[path], bits & 0xFFFF)
        state = EightBitAdamState(count, unflatten_dict(mu), unflatten_dict(nu))
        return unflatten_dict(scaled), state

    return optax.GradientTransformation(init, update)


def to_levels(
    moment: Float[Array, "*shape"],
    largest: Float[Array, "*shape"],
    draw: UInt32[Array, "*shape"],
    dtype: Any,
) -> Int8[Array, "*shape"] | UInt8[Array, "*shape"]:
    """Rounds a moment to one of the two levels around it, whose mean is the moment.

    A second moment below the lowest level is rounded up to it.

    Args:
        moment: a moment.
        largest: largest magnitude in each block, in a shape that broadcasts to that of `moment`.
        draw: random numbers below 2^16.
        dtype: int8 for a first moment, uint8 for a second one.
    """
    lowest, parts = (0, _SIGNED_PARTS) if dtype == jnp.int8 else (1, _UNSIGNED_PARTS)
    share = jnp.abs(moment) / jnp.where(largest > 0, largest, 1)
    below = jnp.clip(jnp.floor(parts * jnp.sqrt(jnp.sqrt(share))), lowest, parts - 1)
    value, above = (below / parts) ** 4, ((below + 1) / parts) ** 4
    rises = (draw.astype(jnp.float32) + 0.5) / 2**16 * (above - value) < share - value
    level = below + rises - lowest
    return (jnp.sign(moment) * level if dtype == jnp.int8 else level).astype(dtype)


def from_levels(
    level: Int8[Array, "*shape"] | UInt8[Array, "*shape"], largest: Float[Array, "*shape"]
) -> Float32[Array, "*shape"]:
    """Returns the moment that levels stand for. `largest` is as for `to_levels`."""
    if level.dtype == jnp.int8:
        share = level.astype(jnp.float32) / _SIGNED_PARTS
        return jnp.sign(share) * share**4 * largest
    return ((level.astype(jnp.float32) + 1) / _UNSIGNED_PARTS) ** 4 * largest


def random_bits(count: Int[Array, ""], number: int, shape: Sequence[int]) -> UInt32[Array, "*s"]:
    """Draws 32 bits for each element of an array, by a hash of its position.

    With `jax.random`, updates took two to four times as long to compile on the CPU. For rounding,
    the hash `lowbias32` of C. Wellons is random enough. On a mesh, each device draws the bits of
    its own elements.

    Args:
        count: number of the update.
        number: number of the array.
        shape: shape of the array.
    """
    position = jnp.zeros(shape, jnp.uint32)
    for axis, extent in enumerate(shape):
        position = position * extent + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    seed = _hash(_hash(count.astype(jnp.uint32)) + jnp.uint32(number))
    return _hash(position ^ seed)


def _hash(x: UInt32[Array, "*s"]) -> UInt32[Array, "*s"]:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _inputs(path: tuple[str, ...], ndim: int) -> tuple[int, ...]:
    """Returns the axes of a kernel within a block: all but its outputs and stacked layers."""
    return tuple(range(1 if is_stacked(path) else 0, ndim - 1))


def _zeros(path: tuple[str, ...], parameter: Array, dtype: Any) -> Levels | Array:
    if not is_matrix(path):
        return jnp.zeros_like(parameter)
    # Computed from the parameter, so that it is split over a mesh as its outputs are.
    largest = 0 * jnp.max(parameter, _inputs(path, parameter.ndim)).astype(jnp.float32)
    return Levels(jnp.zeros_like(parameter, dtype), largest)


def _read(path: tuple[str, ...], stored: Levels | Array) -> Float32[Array, "*shape"]:
    if not isinstance(stored, Levels):
        return stored
    return from_levels(
        stored.level, jnp.expand_dims(stored.largest, _inputs(path, stored.level.ndim))
    )


def _store(path: tuple[str, ...], moment: Array, before: Levels | Array, draw: Array) -> Any:
    if not isinstance(before, Levels):
        return moment
    largest = jnp.max(jnp.abs(moment), _inputs(path, moment.ndim), keepdims=True)
    level = to_levels(moment, largest, draw, before.level.dtype)
    return Levels(level, largest.reshape(before.largest.shape))
