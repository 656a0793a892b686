"""Frozen parameters never change and take no optimiser state; the others learn as without them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_step
import tiny
from flax.traverse_util import flatten_dict
from from_config import (
    abstract_state,
    create_state,
    is_trained,
    make_mesh,
    make_train_step,
    model_flops,
    split,
)

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.optim.trainable import join
from stunet.train.state import count_parameters

ALL = tiny.config(train=dict(clip_norm=1e9))
SPATIAL = dataclasses.replace(ALL, freeze="spatial")


def paths(tree) -> set[tuple[str, ...]]:
    return set(flatten_dict(tree))


@pytest.fixture(scope="module")
def updated(quickly_compiled_convolutions):
    """Updates the same weights once with each value of `freeze`.

    Returns (state before, state after, metrics) by `freeze`: with "none" all weights are trained,
    with "spatial" only the temporal ones.
    """
    mesh = make_mesh(ALL)
    values = meshes.shard_batch(test_step.batch(ALL), mesh)
    states = {}
    with meshes.use(mesh):
        whole = test_step.random_state(ALL, mesh)
        params, frozen = split(SPATIAL, whole.params)
        part = dataclasses.replace(
            create_state(SPATIAL, mesh), params=params, ema=params, frozen=frozen
        )
        for config, state in ((ALL, whole), (SPATIAL, part)):
            after, metrics = jax.jit(make_train_step(config))(state, values)
            states[config.freeze] = state, after, metrics
    return states


def test_frozen_parameters_stay_bit_for_bit_and_the_others_move(updated):
    before, after, _ = updated["spatial"]
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.params, after.params)
    assert all(jax.tree.leaves(moved))


def test_the_others_get_the_gradient_that_they_would(updated):
    """Compares the first moments, which after one update are a multiple of the gradient."""
    (_, whole, metrics), (_, part, same) = updated["none"], updated["spatial"]
    np.testing.assert_allclose(metrics["loss"], same["loss"], rtol=1e-6)
    moments = flatten_dict(optax.tree.get(whole.opt_state, "mu"))
    for path, moment in flatten_dict(optax.tree.get(part.opt_state, "mu")).items():
        np.testing.assert_allclose(moment, moments[path], rtol=1e-4, atol=1e-7, err_msg=str(path))


def test_nothing_is_kept_for_frozen_parameters(updated):
    _, after, _ = updated["spatial"]
    temporal = paths(after.params)
    assert temporal
    assert paths(after.frozen)
    assert all(any("temporal" in n or n.endswith("resize_time") for n in p) for p in temporal)
    assert not any(any("temporal" in n for n in p) for p in paths(after.frozen))
    for tree in (after.ema, *(optax.tree.get(after.opt_state, key) for key in ("mu", "nu"))):
        assert paths(tree) == temporal
    # Trained and frozen parameters together are all parameters of the network.
    assert paths(after.ema_params) == paths(updated["none"][1].params)


def test_a_convolution_that_takes_a_mask_is_trained():
    conditioned = dataclasses.replace(SPATIAL, masks=dataclasses.replace(SPATIAL.masks, image=1.0))
    assert is_trained(conditioned, ("conv_in", "kernel"))
    assert not is_trained(SPATIAL, ("conv_in", "kernel"))


def test_frozen_kernels_are_stored_as_they_are_used():
    """They are stored in bfloat16, to which every use would cast them; the loss is the same."""
    mesh = make_mesh(ALL)
    half = dataclasses.replace(SPATIAL, model=dataclasses.replace(SPATIAL.model, dtype="bfloat16"))
    state = abstract_state(half, mesh)
    for path, leaf in flatten_dict(state.frozen).items():
        assert leaf.dtype == (jnp.bfloat16 if path[-1] == "kernel" else jnp.float32), path
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_split_and_join_are_inverse():
    params = {"conv_in": {"kernel": 1.0}, "down_0_layer_0": {"temporal": {"scale": 2.0}}}
    params = jax.tree.map(jnp.float32, params)
    for config in (ALL, SPATIAL):
        assert join(*split(config, params)) == params


def test_a_step_asks_for_fewer_operations():
    assert 2 / 3 * model_flops(ALL) < model_flops(SPATIAL) < model_flops(ALL)
    state = abstract_state(SPATIAL, make_mesh(ALL))
    whole = abstract_state(ALL, make_mesh(ALL))
    both = count_parameters(state.params) + count_parameters(state.frozen)
    assert both == count_parameters(whole.params)


def test_freezing_all_is_refused():
    asked = configs.default()
    asked.freeze, asked.model.temporal = "spatial", False
    with pytest.raises(UserError, match="leaves nothing to train"):
        configs.resolve(asked)


@pytest.mark.slow
def test_a_frozen_run_continues_and_samples(tmp_path):
    flags = ["--config", tiny.experiment(tmp_path), "--workdir", tmp_path / "run"]
    flags += [*tiny.ONE_LEVEL[:3], "--config.freeze=spatial", "--config.train.steps=5"]
    done = tiny.run("train", *flags)
    assert done.returncode == 0, done.stderr
    assert "of them frozen" in done.stderr
    # Remove the last checkpoint, so that the run continues from the one before.
    whole = tiny.metrics(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "5")
    again = tiny.run("train", *flags)
    assert again.returncode == 0, again.stderr
    assert "from update 3 on" in again.stderr
    losses = lambda lines: {line["step"]: line["loss"] for line in lines if "loss" in line}  # noqa: E731
    assert losses(tiny.metrics(tmp_path / "run")) == losses(whole)
    done = tiny.run("sample", "text", "--workdir", tmp_path / "run", "--prompt", "a 3 moving left")
    assert done.returncode == 0, done.stderr
