"""Updates that are skipped leave no trace but their count, and a continued run skips the same."""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from from_config import make_mesh, parts_with_network
from test_step import batch

from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.measured.reporting import Reporter
from stunet.train.optim.guard import Guard
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
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
    """If the gradient has always been the same, an update of Adam is the learning rate."""
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


class Shown:
    """Stands for everything that a reporter writes to, and keeps the lines."""

    directory, is_compiling = pathlib.Path("run/checkpoints"), False

    def __init__(self):
        self.lines, self.scalars, self.shown = (
            [],
            lambda _, values, *more: self.lines.append(values),
            [],
        )

    def write(self, line):
        self.shown.append(line)

    def report(self, loss, rate, skipped):
        self.shown.append((loss, skipped))

    def measure(self):
        return {"seconds_per_step": 1.0}

    def latest(self):
        return 8

    def update(self, step):
        pass

    def updated(self):
        pass


def report(limit: int, *updates: dict) -> Shown:
    """Reports updates with these metrics, of which the first has number 8."""
    shown, rest = Shown(), dict(count_flops=None, devices=None, write=False)
    reporter = Reporter(shown, shown, shown, shown, sources=[], skip_limit=limit, **rest)
    for step, values in enumerate(updates, 8):
        reporter.add(step, {"learning_rate": jnp.float32(0.5)} | values, (1, 4, 8, 8, 1))
    reporter.report(8 + len(updates))
    return shown


def taken(loss: float, skipped: int) -> dict:
    return {"loss": loss, "grad_norm": 1.0, "skipped_updates": skipped, "in_a_row": 0}


def skipped(loss: float, norm: float, skipped: int, in_a_row: int) -> dict:
    return {"loss": loss, "grad_norm": norm, "skipped_updates": skipped, "in_a_row": in_a_row}


def test_skipped_updates_are_told_and_counted_and_are_in_no_mean():
    updates = taken(1.0, 0), skipped(NAN, NAN, 1, 1), skipped(2.0, 50.0, 2, 2), taken(3.0, 2)
    shown = report(2, *updates)
    assert shown.shown == [
        "update 9 is skipped (1 so far): grad_norm and loss are not finite",
        "update 10 is skipped (2 so far): the gradient's norm of 50 is a spike",
        (2.0, 2),
    ]
    (line,) = shown.lines
    assert (line["loss"], line["grad_norm"], line["skipped_updates"]) == (2.0, 1.0, 2)
    assert "in_a_row" not in line
    (line,) = report(1, skipped(NAN, NAN, 1, 1)).lines
    assert "loss" not in line
    assert line["skipped_updates"] == 1


def test_too_many_in_a_row_and_a_loss_that_is_not_finite_end_the_run_and_say_how_to_go_on():
    too_many = r"update 10: 2 updates in a row were skipped, .*/8; .* --change train.learning_rate"
    with pytest.raises(UserError, match=too_many):
        report(1, taken(1.0, 0), skipped(NAN, NAN, 1, 1), skipped(NAN, NAN, 2, 2), taken(1.0, 2))
    stops = r"update 9: loss is not finite; .*/8; .* --change train.on_nonfinite=skip"
    with pytest.raises(UserError, match=stops):
        report(1, {"loss": 1.0, "grad_norm": 1.0}, {"loss": NAN, "grad_norm": 1.0})


def test_counts_are_saved_and_a_run_without_them_begins_with_none(tmp_path):
    config = tiny.config(train=SKIP)
    *_, (state, _) = states(config, batches(config, broken=2))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    for name, saved in {"with": state, "without": state.replace(guard={})}.items():
        with Checkpoints(tmp_path / name, Retention(3)) as checkpoints:
            checkpoints.save(saved, {"global_next_index": 5})
            checkpoints.wait()
            counts = checkpoints.restore(abstract).state.guard
        assert int(counts["skipped"]) == (name == "with")
        assert int(counts["taken"]) == 4 * (name == "with")
    # Counts that were saved and are lost are damage.
    shutil.rmtree(tmp_path / "with" / "checkpoints" / "5" / "guard")
    with Checkpoints(tmp_path / "with") as checkpoints, pytest.raises(UserError, match="guard"):
        checkpoints.restore(abstract)
