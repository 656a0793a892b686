"""Training of low-rank adapters alone: what changes, by which gradient, and resuming."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import optax
import pytest
import test_step
import tiny
from flax.traverse_util import flatten_dict
from from_config import abstract_state, init_state, make_mesh, make_train_step, model_flops, train

from stunet import configs
from stunet.errors import UserError
from stunet.generate import text
from stunet.nn import lora
from stunet.nn.parameters import is_temporal
from stunet.parallel import mesh as meshes
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.state import count_parameters

RANK, ALPHA = 2, 3.0
# One level, which compiles fast, with all kinds of layers except resizing.
ALL = tiny.config(
    model=dict(
        channel_multipliers=(1,), attention_levels=(True,), temporal_factors=(1,), text_features=0
    ),
    train=dict(clip_norm=1e9),
)
ADAPTED = tiny.with_lora(ALL, rank=RANK, alpha=ALPHA)


@pytest.fixture(scope="module")
def updated(quickly_compiled_convolutions):
    """Updates the same weights once: with all weights trained, and with adapters alone.

    Returns (state before, state after) by name.
    """
    mesh = make_mesh(ALL)
    values = meshes.shard_batch(test_step.batch(ALL), mesh)
    with meshes.use(mesh):
        base = test_step.random_state(ALL, mesh)
        states = {"all": (ALL, base), "adapters": (ADAPTED, init_state(ADAPTED, base.params))}
        return {
            name: (state, jax.jit(make_train_step(config))(state, values)[0])
            for name, (config, state) in states.items()
        }


def test_the_network_stays_bit_for_bit_and_nothing_else_is_kept_of_it(updated):
    before, after = updated["adapters"]
    whole, _ = updated["all"]
    jax.tree.map(np.testing.assert_array_equal, after.frozen, whole.params)
    small = {path: leaf.shape for path, leaf in flatten_dict(before.params).items()}
    assert {path[-1] for path in small} == {lora.A, lora.B}
    for tree in (
        after.params,
        after.ema,
        *(optax.tree.get(after.opt_state, k) for k in ("mu", "nu")),
    ):
        assert {path: leaf.shape for path, leaf in flatten_dict(tree).items()} == small
    jax.tree.map(np.testing.assert_array_equal, before.ema_params, whole.params)
    assert jax.tree.structure(after) == jax.tree.structure(before)


def test_the_gradient_is_the_kernels_through_the_other_factor(updated):
    """For W + s A B, dB = s A^T dW and dA = s dW B^T, which is 0 because B is.

    The test compares first moments, which after one update are a multiple of the gradient.
    """
    (_, whole), (before, after) = updated["all"], updated["adapters"]
    of_kernels = flatten_dict(optax.tree.get(whole.opt_state, "mu"))
    moments = flatten_dict(optax.tree.get(after.opt_state, "mu"))
    for path, a in flatten_dict(before.params).items():
        if path[-1] == lora.B:
            continue
        np.testing.assert_array_equal(moments[path], 0)
        of_kernel = np.asarray(of_kernels[*path[:-1], "kernel"])
        of_kernel = of_kernel.reshape(-1, of_kernel.shape[-1])
        expected = ALPHA / RANK * np.asarray(a).reshape(-1, RANK).T @ of_kernel
        found = moments[*path[:-1], lora.B]
        assert np.abs(found).max() > 0, path
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7, err_msg=str(path))


def test_an_update_changes_spatial_kernels_alone(updated):
    before, after = updated["adapters"]
    moved = {
        path
        for path, leaf in flatten_dict(after.network_params(after.params)).items()
        if np.any(leaf != flatten_dict(before.frozen)[path])
    }
    assert moved == {(*path[:-1], "kernel") for path in flatten_dict(before.params)}
    assert not any(map(is_temporal, moved))


def test_a_plan_counts_them():
    """An adapter has one row and one column of its matrix for each rank; the network is frozen."""
    mesh = make_mesh(ALL)
    state, base = abstract_state(ADAPTED, mesh), abstract_state(ALL, mesh)
    kernels = [k for path, k in flatten_dict(base.params).items() if lora.is_adapted(path)]
    sides = sum(k.size // k.shape[-1] + k.shape[-1] for k in kernels)
    assert count_parameters(state.params) == RANK * sides
    assert count_parameters(state.frozen) == count_parameters(base.params)
    # Temporal weights have no gradient, spatial ones have it as before.
    operations = model_flops(ALL)
    assert 2 / 3 * operations < model_flops(ADAPTED) < operations


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quickly_compiled_convolutions):
    """Returns (directory, config) of a base run, and of a run of adapters that begins with it."""
    config = tiny.config(
        model=dict(
            channel_multipliers=(1,),
            attention_levels=(False,),
            temporal_factors=(1,),
            temporal=False,
            text_features=0,
        ),
        train=dict(steps=4),
        checkpoint=dict(every=2),
    )
    base, adapted = (tmp_path_factory.mktemp(name) for name in ("base", "adapted"))
    train(config, base)
    begun = dataclasses.replace(config.train, init_from=str(base))
    second = dataclasses.replace(tiny.with_lora(config, rank=RANK), train=begun)
    train(second, adapted)
    return (base, config), (adapted, second)


def test_a_run_of_adapters_continues_bit_for_bit(runs):
    _, (directory, config) = runs
    losses = {line["step"]: line["loss"] for line in tiny.metrics(directory) if "loss" in line}
    params = text.load(directory).params
    shutil.rmtree(directory / "checkpoints" / "4")
    train(config, directory)
    again = {line["step"]: line["loss"] for line in tiny.metrics(directory) if "loss" in line}
    assert again == losses
    jax.tree.map(np.testing.assert_array_equal, text.load(directory).params, params)


def test_it_is_sampled_from_with_its_adapters_merged_into_the_base(runs):
    (base, _), (directory, config) = runs
    with Checkpoints(directory) as checkpoints:
        state, *_ = checkpoints.restore(abstract_state(config, make_mesh(config)))
    original = flatten_dict(text.load(base).params)
    factors = flatten_dict(state.ema)
    for path, leaf in flatten_dict(text.load(directory).params).items():
        expected = np.asarray(original[path])
        if path[-1] == "kernel":
            a, b = (np.asarray(factors[*path[:-1], name]) for name in (lora.A, lora.B))
            change = config.lora.alpha / RANK * (a.reshape(-1, RANK) @ b).reshape(expected.shape)
            assert np.abs(change).max() > 1e-6
            np.testing.assert_allclose(leaf, expected + change, atol=1e-6, err_msg=str(path))
        else:
            np.testing.assert_array_equal(leaf, expected, err_msg=str(path))
    # Another run can begin with it, as with any other network.
    assert json.loads((directory / "config.json").read_text())["lora"]["rank"] == RANK


def test_adapters_of_no_network_or_beside_other_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"lora.rank is 2 and train.init_from is empty; .* set"):
        train(ADAPTED, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    asked = configs.default()
    asked.freeze, asked.lora.rank = "spatial", 2
    with pytest.raises(UserError, match=r"lora.rank is 2 and freeze is 'spatial'; .* set free"):
        configs.resolve(asked)
