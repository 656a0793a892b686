"""The update as a function: gradient accumulation, seeds, EMA of the weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax.traverse_util import flatten_dict
from from_config import (
    abstract_state,
    create_state,
    make_mesh,
    make_train_step,
    optimizer,
)

from stunet.parallel import mesh as meshes
from stunet.train.objectives.denoising import drop_text
from stunet.train.objectives.objective import to_float
from stunet.train.state import TrainState


def batch(config, seed=0):
    rng, data, text = np.random.default_rng(seed), config.data, config.text
    size = config.train.batch_size
    return {
        "video": rng.integers(
            0, 256, (size, data.frames, data.height, data.width, data.channels), np.uint8
        ),
        "text": rng.normal(size=(size, text.max_length, text.dim)).astype(np.float32),
        "text_mask": np.ones((size, text.max_length), bool),
    }


@pytest.fixture(scope="module")
def start(quickly_compiled_convolutions):
    config = tiny.config()
    mesh = make_mesh(config)
    with meshes.use(mesh):
        return create_state(config, mesh)


@functools.cache
def step_of(config):
    return jax.jit(make_train_step(config))


def update(config, state, values):
    mesh = make_mesh(config)
    with meshes.use(mesh):
        return step_of(config)(state, meshes.shard_batch(values, mesh))


def test_parts_of_a_batch_make_the_same_update_as_the_whole(start):
    values = batch(tiny.config())
    whole, metrics = update(tiny.config(), start, values)
    parts, same = update(tiny.config(train=dict(accumulate=2)), start, values)
    np.testing.assert_allclose(metrics["loss"], same["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], same["grad_norm"], rtol=1e-4)
    # AdamW's first update is the sign of the gradient. So compare its moments, which are multiples
    # of the gradient.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
        whole.opt_state,
        parts.opt_state,
    )


def test_update_depends_on_seed_and_step_alone(start):
    config, values = tiny.config(), batch(tiny.config())
    first, metrics = update(config, start, values)
    again, same = update(config, start, values)
    assert metrics["loss"] == same["loss"]
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert int(first.step) == 1
    _, other = update(config, dataclasses.replace(start, step=jnp.int32(5)), values)
    assert other["loss"] != metrics["loss"]
    _, other = update(dataclasses.replace(config, seed=1), start, values)
    assert other["loss"] != metrics["loss"]


def test_average_follows_the_weights(start):
    """Each update sets ema <- d ema + (1 - d) params, with a decay d that grows from 1/10."""
    config, values = tiny.config(), batch(tiny.config())
    first, _ = update(config, start, values)
    expected = jax.tree.map(lambda e, p: 0.1 * e + 0.9 * p, start.ema, first.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), first.ema, expected
    )
    late = dataclasses.replace(start, step=jnp.int32(10**6))
    last, _ = update(config, late, values)
    decay = config.train.ema_decay
    expected = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, start.ema, last.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), last.ema, expected
    )


def test_pixels_cover_the_range():
    video = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16, 1)
    clip = to_float(jnp.asarray(video))
    assert clip.min() == -1
    assert clip.max() == 1
    np.testing.assert_array_equal(np.rint((np.asarray(clip) + 1) * 127.5), video)


def test_dropped_captions_leave_no_trace():
    text, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
    text, mask = drop_text(text, mask, jnp.array([True, False]))
    assert bool(mask[0].all())
    assert float(text[0].min()) == 1
    assert not bool(mask[1].any())
    assert float(jnp.abs(text[1]).max()) == 0


# One level, which compiles fast, with enough layers for scans on the way down and up.
LEAN = dict(
    layers_per_level=3,
    channel_multipliers=(1,),
    attention_levels=(True,),
    temporal_factors=(1,),
    text_pooling_heads=0,
    remat="full",
    scan_layers=True,
    dtype="bfloat16",
)


def random_state(config, mesh) -> TrainState:
    """Returns a state of random weights, without compiling a program.

    No projection is at its initial zero, which would stop gradients.
    """
    rng = np.random.default_rng(config.seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype),
        abstract_state(config, mesh).params,
    )
    return TrainState(jnp.int32(0), params, {}, params, optimizer(config).init(params))


@pytest.mark.slow
def test_bfloat16_with_remat_and_scanned_layers_learns(quickly_compiled_convolutions):
    config = tiny.config(model=LEAN, train=dict(batch_size=8, steps=1000, learning_rate=3e-3))
    mesh = make_mesh(config)
    state, losses = random_state(config, mesh), []
    with meshes.use(mesh):
        values = batch(config)
        values["video"][:] = 255  # White clips are learned quickly.
        step, values = jax.jit(make_train_step(config)), meshes.shard_batch(values, mesh)
        for _ in range(20):
            state, metrics = step(state, values)
            losses.append(float(metrics["loss"]))
    assert np.all(np.isfinite(losses))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    for tree in (state.params, state.ema, optax.tree.get(state.opt_state, "mu")):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


def test_weight_decay_shrinks_kernels_alone_also_of_scanned_layers():
    config = tiny.config(
        model=dict(scan_layers=True, layers_per_level=3), train=dict(weight_decay=0.1)
    )
    state = random_state(config, make_mesh(config))
    transformation = optimizer(config)
    still = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = transformation.update(still, state.opt_state, state.params)
    moved = {path[-1]: set() for path in flatten_dict(updates)}
    for path, change in flatten_dict(updates).items():
        moved[path[-1]].add(bool(np.any(change)))
    assert moved.pop("kernel") == {True}
    assert moved == {name: {False} for name in ("scale", "bias", "positional_embedding")}
