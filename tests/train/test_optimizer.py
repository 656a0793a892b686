"""Each optimiser follows its equations, is split over a mesh as the parameters, and resumes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from stunet.configs.combinations import check_combinations
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.optim.guard import Guard
from stunet.train.optim.methods import METHODS, muon_axes
from stunet.train.optim.optimizer import Optimizer, make_optimizer
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState
from stunet.train.step import apply_gradients
from stunet.train.workdir import note_config

RATE, BETA1, BETA2, DECAY = 1e-2, 0.9, 0.99, 0.1
SHAPES = {
    ("conv_in", "kernel"): (1, 3, 3, 3, 128),
    ("conv_in", "bias"): (128,),
    ("down_0_layers", "resnet", "conv1", "kernel"): (2, 1, 3, 3, 128, 128),
    ("down_0_layers", "resnet", "norm1", "scale"): (2, 128),
    ("down_0_layer_0", "temporal", "conv_temporal", "kernel"): (3, 1, 1, 128, 256),
    ("text_pooling", "positional_embedding"): (1, 128),
    ("text_proj", "kernel"): (128, 128),
    ("conv_out", "kernel"): (1, 3, 3, 128, 4),
}
MATRIX = ("text_proj", "kernel")


def optimizer(name: str, **keys) -> Optimizer:
    numbers = dict(steps=100, learning_rate=RATE, warmup_steps=0, final_learning_rate=1.0)
    numbers |= dict(decay_begin=0, beta1=BETA1, beta2=BETA2, weight_decay=DECAY)
    numbers |= dict(clip_norm=1e9, ema_decay=0.9, schedule="constant", optimizer=name)
    return make_optimizer(**numbers | keys)


def drawn(seed: int, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    arrays = {path: rng.normal(0, 0.1, shape) for path, shape in shapes.items()}
    return unflatten_dict({path: jnp.asarray(x, jnp.float32) for path, x in arrays.items()})


def first_state(optimizer: Optimizer, params) -> TrainState:
    state = optimizer.transformation.init(params)
    return TrainState(jnp.int32(0), params, {}, params, state, optimizer.guard.init())


@functools.cache
def jitted(optimizer: Optimizer):
    return jax.jit(functools.partial(apply_gradients, optimizer))


def updated(optimizer: Optimizer, state: TrainState, *gradients, loss=0.0) -> TrainState:
    for gradient in gradients:
        state, _ = jitted(optimizer)(state, jnp.float32(loss), gradient)
    return state


def after(name: str, updates: int, **keys) -> tuple[np.ndarray, list[np.ndarray], TrainState]:
    """Returns a matrix before the updates, its gradients, and the state after the updates."""
    shapes = {MATRIX: (4, 6)}
    params, gradients = drawn(0, shapes), [drawn(1 + i, shapes) for i in range(updates)]
    made = optimizer(name, **keys)
    state = updated(made, first_state(made, params), *gradients)
    arrays = [np.asarray(flatten_dict(tree)[MATRIX], np.float64) for tree in (params, *gradients)]
    return arrays[0], arrays[1:], state


def matrix(tree) -> np.ndarray:
    return np.asarray(flatten_dict(tree)[MATRIX])


def test_lion_takes_the_sign_of_its_moment():
    x, gradients, state = after("lion", 3)
    moment = np.zeros_like(x)
    for g in gradients:
        x = x - RATE * (np.sign(BETA1 * moment + (1 - BETA1) * g) + DECAY * x)
        moment = BETA2 * moment + (1 - BETA2) * g
    np.testing.assert_allclose(matrix(state.params), x, rtol=1e-5)


@pytest.mark.parametrize("beta1", [0.0, BETA1])
def test_adafactor_divides_by_a_second_moment_whose_decay_grows(beta1):
    x, gradients, state = after("adafactor", 3, beta1=beta1)
    second, first = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        decay = min(1 - t**-0.8, BETA2)
        second = decay * second + (1 - decay) * g**2
        u = g / np.sqrt(second)
        u = u / max(1.0, np.sqrt(np.mean(u**2)))
        first = beta1 * first + (1 - beta1) * u
        x = x - RATE * (first + DECAY * x)
    # The first moment is stored in bfloat16, which has 8 bits.
    np.testing.assert_allclose(matrix(state.params), x, atol=RATE * 2**-8 if beta1 else 1e-6)


def test_adafactor_keeps_two_sums_of_a_large_kernel_in_place_of_its_second_moment():
    params, gradient = drawn(0), drawn(1)
    made = optimizer("adafactor", beta1=0.0)
    state = updated(made, first_state(made, params), gradient)
    stored = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert stored < 0.05 * sum(leaf.size for leaf in jax.tree.leaves(params))
    # The largest axes are the last two, so each of the 3 frames has sums of its own.
    path = ("down_0_layer_0", "temporal", "conv_temporal", "kernel")
    squares = np.asarray(flatten_dict(gradient)[path], np.float64) ** 2
    rows = optax.tree.get(state.opt_state, "v_row")
    np.testing.assert_allclose(flatten_dict(rows)[path], squares.mean(axis=-1), rtol=1e-5)


def test_muon_sets_the_singular_values_of_each_layer_of_each_kernel_to_about_one():
    params, gradient = drawn(0), drawn(1)
    made = optimizer("muon", weight_decay=0.0)
    state = updated(made, first_state(made, params), gradient)
    changes = flatten_dict(jax.tree.map(lambda a, b: (a - b) / RATE, params, state.params))
    kernels = {
        ("down_0_layers", "resnet", "conv1", "kernel"): 9 * 128,
        ("down_0_layer_0", "temporal", "conv_temporal", "kernel"): 3 * 128,
        MATRIX: 128,
    }
    for path, rows in kernels.items():
        change = np.asarray(changes.pop(path))
        matrices = change.reshape(-1, rows, change.shape[-1])
        size = 0.2 * np.sqrt(max(matrices.shape[1:]))
        values = np.linalg.svd(matrices, compute_uv=False) / size
        # The iteration does not converge, and the smallest values of a random matrix stay small.
        assert 0.6 < np.quantile(values, 0.05) < values.max() < 1.3
    # Every other parameter takes Adam's first step, the sign of the gradient.
    for path, change in changes.items():
        g = np.asarray(flatten_dict(gradient)[path])
        scale = np.abs(change).mean()
        np.testing.assert_allclose(change, scale * np.sign(g), rtol=0.02, err_msg=str(path))


def test_muon_takes_kernels_and_adapters_but_those_of_the_first_and_last_layer():
    adapters = {("down_0_layers", "resnet", "conv1", "lora_a"): (2, 1, 3, 3, 128, 4)}
    adapters |= {("down_0_layers", "resnet", "conv1", "lora_b"): (2, 4, 128)}
    axes = muon_axes(drawn(0, SHAPES | adapters))
    taken = {path: spec for path, spec in flatten_dict(axes).items() if spec is not None}
    assert taken == {
        ("down_0_layers", "resnet", "conv1", "kernel"): ((1, 2, 3, 4), 5),
        ("down_0_layers", "resnet", "conv1", "lora_a"): ((1, 2, 3, 4), 5),
        ("down_0_layers", "resnet", "conv1", "lora_b"): ((1,), 2),
        ("down_0_layer_0", "temporal", "conv_temporal", "kernel"): ((0, 1, 2, 3), 4),
        MATRIX: ((0,), 1),
    }


def test_schedule_free_samples_with_the_average_of_its_weights():
    x, gradients, state = after("schedule_free", 4)
    z, y, second = x, x, np.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        second = BETA2 * second + (1 - BETA2) * g**2
        z = z - RATE * (g / (np.sqrt(second / (1 - BETA2**t)) + 1e-8) + DECAY * y)
        x = (1 - 1 / t) * x + z / t
        y = BETA1 * x + (1 - BETA1) * z
    np.testing.assert_allclose(matrix(state.params), y, rtol=1e-4)
    np.testing.assert_allclose(matrix(state.ema), x, rtol=1e-4)


def test_schedule_free_gives_weights_of_its_warm_up_a_share_by_their_squared_rate():
    """The average is that of Defazio et al. (arXiv 2405.15682), algorithm 1; it is not uniform."""
    x, gradients, state = after("schedule_free", 6, warmup_steps=3)
    rates = RATE * np.array([1 / 4, 2 / 4, 3 / 4, 1, 1, 1])
    z, y, second, all_z = x, x, np.zeros_like(x), []
    for t, (rate, g) in enumerate(zip(rates, gradients, strict=True), 1):
        second = BETA2 * second + (1 - BETA2) * g**2
        z = z - rate * (g / (np.sqrt(second / (1 - BETA2**t)) + 1e-8) + DECAY * y)
        all_z.append(z)
        shares = rates[:t] ** 2 / np.sum(rates[:t] ** 2)
        average = np.tensordot(shares, all_z, 1)
        y = BETA1 * average + (1 - BETA1) * z
    np.testing.assert_allclose(matrix(state.params) - x, y - x, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(matrix(state.ema) - x, average - x, rtol=1e-3, atol=1e-6)
    # A uniform average would be elsewhere.
    assert np.abs(np.mean(all_z, axis=0) - average).max() > 100 * 1e-6


def test_the_state_of_adamw_is_that_of_optax_so_that_earlier_checkpoints_continue():
    params = drawn(0)
    plain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.constant_schedule(1.0)))
    paths = [path for path, _ in jax.tree.leaves_with_path(plain.init(params))]
    made = optimizer("adamw").transformation.init(params)
    assert [path for path, _ in jax.tree.leaves_with_path(made)] == paths


@pytest.mark.parametrize("name", METHODS)
def test_the_number_of_the_update_decides_the_learning_rate_also_after_skipped_ones(name):
    made = optimizer(name, schedule="cosine", final_learning_rate=0.0, weight_decay=0.0)
    made = dataclasses.replace(made, guard=Guard(skip_nonfinite=True))
    shapes = {MATRIX: (4, 6)}
    start, gradient = first_state(made, drawn(0, shapes)), drawn(1, shapes)
    skipped = updated(made, start, gradient, loss=jnp.nan)
    assert int(skipped.step) == 1
    jax.tree.map(np.testing.assert_array_equal, skipped.params, start.params)
    jax.tree.map(np.testing.assert_array_equal, skipped.opt_state, start.opt_state)
    first = matrix(updated(made, start, gradient).params) - matrix(start.params)
    # After 50 of 100 updates, the cosine is at half of its peak.
    late = updated(made, skipped.replace(step=jnp.int32(50)), gradient)
    np.testing.assert_allclose(matrix(late.params) - matrix(start.params), first / 2, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_the_rate_of_a_group_scales_the_first_update_of_its_parameters_alone(name):
    shapes = {
        ("down_0_layer_0", "temporal", "proj", "kernel"): (1, 1, 1, 4, 4),
        ("mid_layer", "attention", "add_k_proj", "kernel"): (4, 4),
        ("text_proj", "kernel"): (4, 4),
        ("mid_layer", "attention", "transformer_blocks_0", "attn2", "to_k", "kernel"): (4, 4),
        ("mid_layer", "attention", "to_k", "kernel"): (4, 4),
        ("mid_layer", "attention", "transformer_blocks_0", "attn1", "to_k", "kernel"): (4, 4),
    }
    params, gradient = drawn(0, shapes), drawn(1, shapes)

    def changes(**keys):
        made = optimizer(name, **keys)
        state = updated(made, first_state(made, params), gradient)
        return flatten_dict(jax.tree.map(lambda a, b: a - b, state.params, params))

    whole = changes()
    scaled = changes(temporal_rate=0.5, text_rate=0.25)
    for path, factor in zip(shapes, (0.5, 0.25, 0.25, 0.25, 1.0, 1.0), strict=True):
        np.testing.assert_allclose(scaled[path], factor * whole[path], atol=1e-7)


def test_norms_by_layer_make_up_the_whole_norm_and_change_no_update():
    made = optimizer("adamw")
    state, gradient = first_state(made, drawn(0)), drawn(1)
    loss = jnp.float32(0)
    measured = jax.jit(functools.partial(apply_gradients, made, norms_by_layer=True))
    after, metrics = measured(state, loss, gradient)
    jax.tree.map(np.testing.assert_array_equal, after, updated(made, state, gradient))
    norms = {key.removeprefix("grad_norm/"): v for key, v in metrics.items() if "grad_norm/" in key}
    # The two layers of a stack have norms of their own.
    assert {"down_0_layer_1", "down_0_layer_2", "text_proj", "conv_in"} < norms.keys()
    total = np.sqrt(sum(float(norm) ** 2 for norm in norms.values()))
    assert total == pytest.approx(float(metrics["grad_norm"]), rel=1e-5)
    moved = matrix(after.params) - matrix(state.params)
    found = float(metrics["update_norm/text_proj"])
    assert found == pytest.approx(np.linalg.norm(moved), rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_state_continues_bitwise(name, tmp_path):
    made, gradients = optimizer(name), [drawn(1 + i) for i in range(4)]
    half = updated(made, first_state(made, drawn(0)), *gradients[:2])
    with Checkpoints(tmp_path, Retention(1)) as checkpoints:
        checkpoints.save(half, {"global_next_index": 2})
        checkpoints.wait()
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), half
        )
        restored = checkpoints.restore(abstract).state
    whole, continued = (updated(made, state, *gradients[2:]) for state in (half, restored))
    jax.tree.map(np.testing.assert_array_equal, whole, continued)


@pytest.mark.parametrize("name", METHODS)
def test_moments_are_split_over_the_mesh_as_their_parameters(name):
    mesh = meshes.abstract_mesh(meshes.Layout(data=1, fsdp=4, tensor=2), 8)
    names = {"kernel": ("fsdp", "tensor"), "bias": (None,), "scale": (None,)}

    def placed(path, shape):
        last = names.get(path[-1], (None,))
        spec = PartitionSpec(*[None] * (len(shape) - len(last)), *last)
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

    inner = {path: shape for path, shape in SHAPES.items() if not path[0].startswith("conv_")}
    params = {path: placed(path, shape) for path, shape in inner.items()}
    made = optimizer(name).transformation
    derived = meshes.derived(made.init, unflatten_dict(params), mesh)
    fresh = made.init(jax.tree.map(lambda x: jnp.zeros(x.shape), unflatten_dict(params)))
    found = jax.tree.leaves_with_path(derived)
    assert [path for path, _ in found] == [path for path, _ in jax.tree.leaves_with_path(fresh)]
    seen = 0
    for keys, leaf in found:
        *_, field = (key.name for key in keys if isinstance(key, jax.tree_util.GetAttrKey))
        path = tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))[-4:]
        param = next((p for q, p in params.items() if q == path[-len(q) :]), None)
        if param is None or leaf.size == 1:
            assert leaf.sharding.is_fully_replicated
        elif field == "largest":
            kept = [*([0] if path[0].endswith("_layers") else []), len(param.shape) - 1]
            assert leaf.shape == tuple(param.shape[i] for i in kept)
            assert [*leaf.sharding.spec] == [param.sharding.spec[i] for i in kept]
        elif field == "level":
            assert (leaf.shape, leaf.sharding) == (param.shape, param.sharding)
            assert leaf.dtype.itemsize == 1
            seen += 1
        elif field in ("v_row", "v_col"):
            rest = [*range(-len(param.shape), 0)]
            rest.remove(-1 if field == "v_row" else -2)
            assert leaf.shape == tuple(param.shape[i] for i in rest)
            assert [*leaf.sharding.spec] == [param.sharding.spec[i] for i in rest]
            seen += 1
        else:
            assert (leaf.shape, leaf.sharding) == (param.shape, param.sharding)
            seen += 1
    assert seen >= len(params)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "set train.schedule to 'constant'"),
        (dict(schedule="constant", beta1=0.0), "set train.beta1 above 0"),
    ],
)
def test_schedule_free_needs_a_constant_rate_and_an_average(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        check_combinations(tiny.config(train=dict(optimizer="schedule_free") | keys))


@pytest.mark.parametrize("name", ["adafactor", "schedule_free"])
def test_a_run_keeps_its_beta1_where_the_state_depends_on_it(name, tmp_path):
    keys = dict(optimizer=name, schedule="constant")
    note_config(tiny.config(train=keys), tmp_path)
    with pytest.raises(UserError, match=f"the state of '{name}' depends on it"):
        note_config(tiny.config(train=keys | dict(beta1=0.8)), tmp_path, ["train.beta1"])
