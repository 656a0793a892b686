"""Updates that are skipped leave no trace but their count, and a continued run skips the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from from_config import make_mesh, parts_with_network, train
from test_step import batch

from stunet.data import pipeline
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.guard import Guard
from stunet.train.state import TrainState
from stunet.train.step import make_train_step

SKIP = dict(on_nonfinite="skip")
NAN = np.float32(np.nan)


def counted(guard: Guard, norms: list[float]) -> tuple[list[bool], dict]:
    """Returns which updates with these norms are taken, and what the guard has counted."""

    def one(counts, norm):
        taken = guard.takes(counts, jnp.float32(1), norm)
        return guard.count(counts, taken, norm), taken

    counts, taken = jax.lax.scan(one, guard.init(), jnp.asarray(norms, jnp.float32))
    return np.asarray(taken).tolist(), jax.device_get(counts)


def test_spikes_are_norms_far_above_the_mean_of_those_that_were_taken():
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0, 1, 400)
    norms[[5, 200, 201, 300]] = 1e3
    taken, counts = counted(Guard(spikes=10.0), norms.tolist())
    seen, expected = [], []
    for norm in norms:
        weights = 0.99 ** np.arange(len(seen))[::-1]
        is_spike = len(seen) >= 100 and norm > 10 * np.average(seen, weights=weights)
        expected.append(not is_spike)
        seen += [] if is_spike else [norm]
    assert taken == expected
    # The fifth is among the first updates, of which none is skipped.
    assert [i for i, each in enumerate(taken) if not each][:2] == [200, 201]
    assert (counts["skipped"], counts["in_a_row"]) == (400 - len(seen), 0)
    assert counts["taken"] == len(seen)


@pytest.mark.parametrize(("spikes", "expected"), [(0.0, [True] * 2), (2.0, [True, False])])
def test_infinite_norms_are_spikes_only_if_spikes_are_asked_for(spikes, expected):
    taken, _ = counted(Guard(skip_nonfinite=True, spikes=spikes), [1.0] * 100 + [2.0, 2.1])
    assert taken[100:] == expected
    taken, counts = counted(Guard(skip_nonfinite=True, spikes=spikes), [1.0, np.inf, NAN, 1.0])
    assert taken == [True, False, False, True]
    assert (counts["skipped"], counts["in_a_row"]) == (2, 0)


@functools.cache
def step_of(config):
    """The update of a network that is a formula, which compiles in a second."""

    def network(params, inputs, time, text, mask):
        return params["dense"]["kernel"] * inputs + params["dense"]["bias"] * text.mean()

    parts = parts_with_network(config, lambda params, *rest: network(params["params"], *rest))
    step = make_train_step(
        parts.objective, parts.optimizer, seed=parts.seed, accumulate=parts.accumulate
    )
    return parts.optimizer, jax.jit(step)


def states(config, batches):
    """Yields the state before the first update and after each, and the metrics of each."""
    optimizer, step = step_of(config)
    params = {"dense": {"kernel": jnp.full((), 0.5), "bias": jnp.zeros(())}}
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        frozen={},
        ema=params,
        opt_state=optimizer.transformation.init(params),
        guard=optimizer.guard.init(),
    )
    mesh = make_mesh(config)
    yield state, None
    with meshes.use(mesh):
        for values in batches:
            state, metrics = step(state, meshes.shard_batch(values, mesh))
            yield state, metrics


def batches(config, broken: int, rows: slice = slice(None)):
    found = [batch(config, seed) for seed in range(5)]
    found[broken]["text"][rows] = NAN
    return found


def leaves(state: TrainState) -> list[np.ndarray]:
    return jax.device_get(jax.tree.leaves((state.params, state.ema, state.opt_state)))


# With two parts, the batch's last row is in one of them alone.
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_not_finite_leaves_weights_average_and_moments_as_they_were(accumulate):
    config = tiny.config(train=SKIP | dict(accumulate=accumulate))
    run = list(states(config, batches(config, broken=2, rows=slice(3, 4))))
    before, (after, metrics) = run[2][0], run[3]
    for old, new in zip(leaves(before), leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (int(after.step), int(metrics["skipped_updates"]), int(metrics["in_a_row"])) == (3, 1, 1)
    assert not np.isfinite(metrics["loss"])
    last, metrics = run[-1]
    assert all(np.isfinite(leaf).all() for leaf in leaves(last))
    assert (int(last.step), int(metrics["skipped_updates"]), int(metrics["in_a_row"])) == (5, 1, 0)


def test_without_the_guard_such_a_batch_spoils_the_weights():
    config = tiny.config()
    *_, (last, metrics) = states(config, batches(config, broken=2))
    assert not np.isfinite(last.params["dense"]["kernel"])
    assert "skipped_updates" not in metrics


def test_the_learning_rate_follows_the_schedule_over_skipped_updates():
    """With Adam's moments of one constant gradient, an update is the learning rate."""
    config = tiny.config(train=SKIP)
    run = list(states(config, batches(config, broken=2)))
    for _, metrics in run[1:3]:
        assert np.isfinite(metrics["loss"])
    schedules = [
        leaf
        for leaf in jax.tree.leaves(
            run[-1][0].opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
        )
        if isinstance(leaf, optax.ScaleByScheduleState)
    ]
    assert [int(each.count) for each in schedules] == [5]


@pytest.fixture
def ninth_batch_is_nan(monkeypatch):
    """Makes the ninth batch of every training NaN. `fail_at` is a batch that cannot be read."""
    following, at = pipeline.TrainBatches.__next__, {"fail": None}

    def poisoned(self):
        number = self.get_state()["global_next_index"] // self._batch_size + 1
        if number == at["fail"]:
            raise OSError("the disk is gone")
        values = following(self)
        return values | {"text": values["text"] * NAN} if number == 9 else values

    monkeypatch.setattr(pipeline.TrainBatches, "__next__", poisoned)
    return at


def run_config(**keys):
    return tiny.config(
        model=tiny.ONE_LEVEL_KEYS, train=dict(steps=14) | keys, checkpoint=dict(every=4)
    )


def test_run_whose_ninth_batch_is_nan_goes_on_and_continues_bitwise(
    ninth_batch_is_nan, tmp_path, capfd
):
    from test_run import assert_same_bits, parameters

    config = run_config(**SKIP)
    assert train(config, tmp_path / "whole") == 14
    assert "update 9 is skipped (1 so far): loss and grad_norm are not finite" in (
        capfd.readouterr().err
    )
    # The other run fails just before the skipped update, and after it.
    for ninth_batch_is_nan["fail"] in (9, 13):
        with pytest.raises(OSError, match="the disk is gone"):
            train(config, tmp_path / "parts")
    ninth_batch_is_nan["fail"] = None
    assert train(config, tmp_path / "parts") == 14
    for step in (12, 14):
        assert_same_bits(*(parameters(tmp_path / run, step) for run in ("whole", "parts")))
    whole, parts = (tiny.metrics(tmp_path / run) for run in ("whole", "parts"))
    keys = ("step", "loss", "grad_norm", "learning_rate", "skipped_updates")
    assert [[line.get(k) for k in keys] for line in whole] == [
        [line.get(k) for k in keys] for line in parts
    ]
    assert [line["skipped_updates"] for line in whole] == [0] * 8 + [1] * 6
    assert [line["step"] for line in whole if "loss" not in line] == [9]


def test_a_run_that_skips_too_much_ends_and_says_how_to_go_on(ninth_batch_is_nan, tmp_path):
    with pytest.raises(
        UserError, match=r"update 9: 1 updates in a row were skipped, .*checkpoints/8; "
    ):
        train(run_config(skip_limit=0, **SKIP), tmp_path / "run")
    with pytest.raises(UserError, match="update 9: loss and grad_norm are not finite; .*--change"):
        train(run_config(), tmp_path / "other")
