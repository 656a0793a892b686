"""Which checkpoints stay: the latest, every n-th, the best; and those that time asks for."""

import itertools
import json
import math
import random

import jax.numpy as jnp
import pytest
import tiny

from stunet.configs.combinations import check_combinations
from stunet.errors import UserError
from stunet.train.measured.metrics import Metrics
from stunet.train.saved.checkpoint_names import steps
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention, SaveTimer
from stunet.train.state import TrainState


@pytest.mark.parametrize("seed", range(20))
def test_each_rule_keeps_what_it_says_and_nothing_else_stays(seed):
    generator = random.Random(seed)
    found = generator.sample(range(1, 60), 12)
    strange = [math.nan, math.inf, None]
    values = {s: generator.choice([generator.random(), *strange]) for s in found}
    values = {s: v for s, v in values.items() if v is not None}
    latest, every, best = generator.randint(1, 4), generator.choice([0, 5]), ""
    best, highest = generator.choice(["", "val/loss"]), generator.choice([False, True])
    kept = Retention(latest, every, best, highest).kept(found, values)
    choose = max if highest else min

    assert {s for s in found if sum(other > s for other in found) < latest} <= kept
    assert all(s in kept for s in found if every and s % every == 0)
    finite = {s: v for s, v in values.items() if math.isfinite(v)}
    if best and finite:
        assert choose(finite, key=finite.get) in kept
    for step in kept:
        newer = sum(other > step for other in found)
        is_best = bool(best) and finite.get(step) == choose(finite.values(), default=None)
        assert newer < latest or (every and step % every == 0) or is_best


def state(step: int) -> TrainState:
    params = {"a": jnp.full(3, step, jnp.float32)}
    return TrainState(jnp.int32(step), params, {}, params, {})


def test_the_best_stays_while_others_go(tmp_path):
    losses = {1: 0.9, 2: 0.3, 3: 0.5, 4: math.nan, 5: 0.4, 6: 0.2, 7: 0.6}
    there = []
    with Checkpoints(tmp_path, Retention(latest=2, every=3, best="val/loss")) as checkpoints:
        for step in losses:
            # A checkpoint is measured after it is saved.
            measured = {s: loss for s, loss in losses.items() if s < step}
            checkpoints.save(state(step), {"global_next_index": step}, measured)
            checkpoints.wait()
            there.append(steps(tmp_path)[::-1])
    assert there == [
        [1],
        [1, 2],
        [2, 3],
        [2, 3, 4],
        [2, 3, 4, 5],
        [2, 3, 5, 6],
        [3, 6, 7],
    ]


def test_a_damaged_checkpoint_makes_no_other_go(tmp_path):
    with Checkpoints(tmp_path, Retention(latest=2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), {"global_next_index": step})
            checkpoints.wait()
    for file in (tmp_path / "checkpoints" / "2" / "ema").rglob("d/*"):
        file.write_bytes(b"")
    with Checkpoints(tmp_path, Retention(latest=2)) as checkpoints:
        assert int(checkpoints.restore(state(0)).state.step) == 1
        checkpoints.save(state(2), {"global_next_index": 2})
        checkpoints.wait()
    # The damaged one does not count as one of the latest two.
    assert steps(tmp_path) == [2, 1]
    assert (tmp_path / "checkpoints" / "2.damaged").is_dir()


def test_values_of_the_tracked_metric_outlive_the_process(tmp_path):
    file = tmp_path / "metrics.jsonl"
    with Metrics(tmp_path, 0, write=True, tracked="val/loss") as metrics:
        for step in (1, 2, 3):
            metrics.scalars(step, {"loss": 9.0})
            metrics.scalars(step, {"val/loss": step / 8})
        assert metrics.values == {1: 1 / 8, 2: 2 / 8, 3: 3 / 8}
    with file.open("ab") as opened:
        opened.write(b'{"step": 3, "val/loss": null}\n\xff\n[]\n{"step": "x"}\n')
    # A process that does not write knows them too, up to the checkpoint that it continues.
    assert Metrics(tmp_path, 2, write=False, tracked="val/loss").values == {1: 1 / 8, 2: 2 / 8}


def test_time_asks_once_for_each_checkpoint():
    ticks = itertools.count()
    timer = SaveTimer(5, now=lambda: next(ticks))
    asked = [step for step in range(1, 13) if timer.asks()]
    assert len(asked) == 1
    timer.saved()
    assert any(timer.asks() for _ in range(8))
    assert not any(SaveTimer(0, now=lambda: next(ticks)).asks() for _ in range(99))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (dict(every=10, keep_every=25), "checkpoint.keep_every is 25; .* multiple of 10"),
        (dict(keep_best="val/los"), "checkpoint.keep_best is 'val/los'; choose one of loss, val/"),
        (dict(keep_best="val/loss"), "log.validate_every is 0, so that nothing"),
    ],
)
def test_rules_that_cannot_hold_are_refused(keys, sentence):
    config = tiny.config(checkpoint=keys)
    with pytest.raises(UserError, match=sentence):
        check_combinations(config)


def test_checkpoints_that_no_validation_measures_are_refused():
    keys = dict(every=10, keep_best="val/loss_t=0.5")
    check_combinations(tiny.config(checkpoint=keys, log=dict(validate_every=5)))
    with pytest.raises(UserError, match=r"checkpoint.every is 10; .* multiple of 4"):
        check_combinations(tiny.config(checkpoint=keys, log=dict(validate_every=4)))


@pytest.mark.slow
def test_two_processes_agree_on_when_time_asks(tmp_path):
    """Their clocks differ: only that of the first process counts, and both save the same update."""
    workdir = tmp_path / "run"
    job = tiny.launch(
        *tiny.command("train", f"--config={tiny.experiment(tmp_path)}", f"--workdir={workdir}"),
        *tiny.ONE_LEVEL,
        "--config.train.steps=12",
        "--config.checkpoint.every=1000",
        "--config.checkpoint.keep=100",
        "--config.checkpoint.every_minutes=0.001",
    )
    _, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors
    saved = steps(workdir)
    assert saved[0] == 12
    assert len(saved) > 2
    lines = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
    assert set(saved) <= set(lines)
