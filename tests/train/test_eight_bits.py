"""Moments in 8 bits are right on average, take a byte, and train as those of 32 bits do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from stunet.train.optim.eight_bits import from_levels, scale_by_adam_8bit, to_levels
from stunet.train.optim.methods import METHODS, Numbers

SHAPE = (1, 3, 3, 16, 8)


def spread(dtype, seed=0):
    """Returns moments of many magnitudes, and the largest magnitude of each output feature."""
    rng = np.random.default_rng(seed)
    moment = 10 ** rng.uniform(-7, 1, SHAPE)
    if dtype == jnp.int8:
        moment *= rng.choice([-1, 1], SHAPE)
    moment = jnp.asarray(moment, jnp.float32)
    return moment, jnp.max(jnp.abs(moment), (0, 1, 2, 3), keepdims=True)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_every_level_is_stored_as_itself(dtype):
    bounds = jnp.iinfo(dtype)
    level = jnp.arange(max(bounds.min, -127), bounds.max + 1).astype(dtype)
    largest = jnp.float32(0.3)
    values = from_levels(level, largest)
    assert np.all(np.diff(values) > 0)
    assert values[-1] == largest
    # At a level, a rounding error of float32 leads to a neighbour once in many times.
    found = to_levels(values, largest, jnp.full(level.shape, 2**15, jnp.uint32), dtype)
    assert np.mean(found == level) > 0.99


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_a_moment_is_rounded_to_a_level_beside_it_and_is_right_on_average(dtype):
    moment, largest = spread(dtype)
    draws = jax.random.bits(jax.random.key(1), (4000, *SHAPE)) >> 16
    stored = jax.jit(jax.vmap(lambda draw: to_levels(moment, largest, draw, dtype)))(draws)
    values = np.asarray(from_levels(stored, largest[None]), np.float64)
    # At most two levels next to each other.
    assert np.all(np.ptp(np.asarray(stored, int), axis=0) <= 1)
    error = np.abs(values.mean(0) - moment)
    if dtype == jnp.uint8:
        lowest = largest * 256.0**-4
        assert np.all(values >= lowest)
        error = np.where(moment < lowest, 0, error)
    low = np.abs(np.asarray(stored, int)).min(0)
    low = np.minimum(low, jnp.iinfo(dtype).max - 1).astype(dtype)
    gap = from_levels(low + 1, largest) - from_levels(low, largest)
    # The error of a mean of 4,000 is below five times half of the gap over the root of 4,000.
    assert np.all(error <= 5 * 0.5 * gap / 4000**0.5 + 1e-6 * np.abs(moment) + 1e-12 * largest)


def test_without_gradients_moments_shrink_at_their_rates():
    made = scale_by_adam_8bit(0.9, 0.99)
    moment, _ = spread(jnp.int8)
    gradient = {
        "conv": {"kernel": jnp.sign(moment) * (0.5 + jax.random.uniform(jax.random.key(0), SHAPE))}
    }
    _, state = made.update(gradient, made.init(gradient))
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    step = jax.jit(made.update)
    for _ in range(30):
        _, state = step(nothing, state)
    first, second = (flatten_dict(tree)["conv", "kernel"] for tree in (state.mu, state.nu))
    g = np.asarray(gradient["conv"]["kernel"])
    shares = [
        np.sum(np.asarray(from_levels(first.level, first.largest)) * np.sign(g))
        / np.sum(0.1 * np.abs(g)),
        np.sum(np.asarray(from_levels(second.level, second.largest))) / np.sum(0.01 * g**2),
    ]
    np.testing.assert_allclose(shares, [0.9**30, 0.99**30], rtol=0.03)


def test_moments_of_kernels_take_a_byte_and_those_of_vectors_are_exact():
    params = {"conv": {"kernel": jnp.ones(SHAPE), "bias": jnp.ones(8)}}
    made, exact = scale_by_adam_8bit(0.9, 0.99), optax.scale_by_adam(0.9, 0.99)
    state, expected = made.init(params), exact.init(params)
    for seed in range(3):
        gradient = jax.tree.map(
            lambda p, seed=seed: jax.random.normal(jax.random.key(seed), p.shape), params
        )
        updates, state = made.update(gradient, state)
        wanted, expected = exact.update(gradient, expected)
    np.testing.assert_allclose(updates["conv"]["bias"], wanted["conv"]["bias"], rtol=1e-5)
    np.testing.assert_allclose(updates["conv"]["kernel"], wanted["conv"]["kernel"], atol=0.15)
    stored = sum(leaf.nbytes for leaf in jax.tree.leaves((state.mu, state.nu)))
    # A byte of each element, 4 bytes of each block of a kernel, and 4 of each element of a vector.
    assert stored == 2 * (np.prod(SHAPE) + 4 * 8 + 4 * 8)


def test_a_regression_ends_as_with_32_bits():
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(512, 32)) * 10 ** rng.uniform(-1, 1, 32), jnp.float32)
    target = jnp.asarray(rng.normal(size=(32, 8)), jnp.float32)
    params = {"text_proj": {"kernel": jnp.zeros((32, 8))}}

    def loss(params, rows):
        return jnp.mean((inputs[rows] @ (params["text_proj"]["kernel"] - target)) ** 2)

    def trained(name):
        made = METHODS[name].make(Numbers(lambda count: 0.05 * (1 - count / 400), 0.9, 0.99, 0.0))

        def step(carry, key):
            params, state = carry
            gradient = jax.grad(loss)(params, jax.random.randint(key, (32,), 0, 512))
            updates, state = made.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, made.init(params))
        (end, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 400))
        return float(loss(end, slice(None)))

    start = float(loss(params, slice(None)))
    exact, ours = trained("adamw"), trained("adamw_8bit")
    assert exact < 1e-4 * start
    assert ours < 1.2 * exact
