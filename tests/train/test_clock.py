"""The account of a run's wall time, with a simulated clock and with one that is moved on."""

import functools
import json
import time

import numpy as np
import pytest
import tiny
from from_config import model_flops, train

from stunet.data import pipeline
from stunet.train import run as run_module
from stunet.train.measured import clock as clock_module
from stunet.train.measured.clock import Clock
from stunet.train.measured.metrics import Metrics

# Seconds by which a run's clock is moved on. Each is many times what an update takes, also on a
# busy machine.
DATA, VALIDATION, COMPILING = 100.0, 800.0, 1000.0


class Time:
    """Simulated time; the clock of each process starts at an arbitrary value."""

    def __init__(self):
        self.now = 1e4

    def clock(self, begins: float) -> Clock:
        first = self.now
        return Clock(lambda: self.now - first + begins, lambda: self.now)


def process(rng, workdir, clock, now, kept, number):
    """Trains from the last checkpoint until a kill, which may come before the first update.

    `kept` holds `(process, seconds)` of each update. Returns the step of the last checkpoint.
    """
    saved = step = max(kept, default=0)
    clock.note(workdir)
    now.now += rng.uniform(0, 50)  # Restoring the checkpoint takes time.
    with Metrics(workdir, step, write=True) as metrics:
        clock.resume(metrics.last)
        clock.begin()
        for _ in range(rng.integers(0, 12)):
            begun, waits = now.now, rng.uniform(0, 1)
            with clock.waiting():
                now.now += waits
            now.now += rng.uniform(0, 3) + (40 if clock.is_compiling else 0)
            clock.updated()
            step += 1
            kept[step] = (number, now.now - begun, waits)
            save, report, validates = rng.random(3) < (0.4, 0.4, 0.2)
            if save or report or validates:
                with clock.aside():
                    if save or report:
                        yield step, clock.measure(), metrics
                    saved = step if save else saved
                    now.now += rng.uniform(0, 20)
    for lost in range(saved + 1, step + 1):
        del kept[lost]
    now.now += rng.uniform(0, 1000)  # No process runs for a time.


def productive(kept) -> float:
    """Returns the seconds of all updates that were kept.

    The first update of a process counts as much as its other updates do on average.
    """
    total = 0.0
    for number in {number for number, *_ in kept.values()}:
        _, *others = (seconds for n, seconds, _ in kept.values() if n == number)
        total += sum(others) * (1 + 1 / len(others)) if others else 0.0
    return total


@pytest.mark.parametrize("seed", range(12))
def test_goodput_is_the_share_of_kept_updates_in_all_the_time_since_the_first_start(tmp_path, seed):
    rng, now, kept = np.random.default_rng(seed), Time(), {}
    begun, seen, last_line = now.now, 0, 0
    for number in range(8):
        clock = now.clock(rng.uniform(0, 1e6))
        last_line = max(kept, default=0)
        for step, values, metrics in process(rng, tmp_path, clock, now, kept, number):
            metrics.scalars(step, values)
            assert values["productive_seconds"] == pytest.approx(productive(kept))
            assert values["goodput"] == pytest.approx(productive(kept) / (now.now - begun))
            # The updates since the last line, or in this process. The first one is left out unless
            # it is the only one.
            mine = [kept[s] for s in range(last_line + 1, step + 1)]
            if last_line == 0 or kept[last_line][0] != number:
                mine = mine[1:] or mine
            seconds = [s for _, s, _ in mine]
            assert values["seconds_per_step"] == pytest.approx(np.mean(seconds))
            waits = sum(w for *_, w in mine)
            assert values["data_wait"] == pytest.approx(waits / sum(seconds))
            last_line, seen = step, seen + 1
    assert seen > 4
    assert len({number for number, *_ in kept.values()}) > 1
    # A process knows earlier ones only by the work directory.
    assert json.loads((tmp_path / "clock.json").read_text()) == {"began": begun}


def test_a_host_whose_date_is_behind_sees_no_more_than_all_of_it(tmp_path):
    (tmp_path / "clock.json").write_text('{"began": 2e4}')
    now = Time()
    clock = now.clock(0)
    clock.note(tmp_path)
    clock.begin()
    for _ in range(3):
        now.now += 1
        clock.updated()
    with clock.aside():
        assert clock.measure()["goodput"] == 1


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """Returns (config, metrics, True for a line before the crash) of a run that crashes.

    Its data is slow, a slow validation falls between two lines of metrics, and the first update of
    each process is slow. It crashes in update 8 and continues from update 6.
    """
    workdir = tmp_path_factory.mktemp("runs") / "crashed"
    config = tiny.config(
        model=tiny.ONE_LEVEL_KEYS,
        train=dict(steps=12),
        checkpoint=dict(every=6),
        log=dict(every=2, validate_every=3),
    )
    next_batch, jit_step, crashes = pipeline.TrainBatches.__next__, run_module.program.jit_step, [8]
    added = []

    def seconds():
        return time.monotonic() + sum(added)

    def date():
        return time.time() + sum(added)

    def slow_batch(self):
        added.append(DATA)
        return next_batch(self)

    def slow_first(*arguments):
        update, calls = jit_step(*arguments), []

        def run(state, batch):
            calls.append(1)
            if len(calls) == 1:
                added.append(COMPILING)
            if len(calls) in crashes:
                raise Crash
            return update(state, batch)

        run.lower = update.lower
        return run

    def validate(*_):
        added.append(VALIDATION)
        return {"val/loss": 0.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.TrainBatches, "__next__", slow_batch)
        patch.setattr(run_module.program, "jit_step", slow_first)
        patch.setattr(run_module, "make_validation", lambda *_, **__: validate)
        patch.setitem(clock_module.BFLOAT16, "cpu", 1e12)
        patch.setattr(run_module, "Clock", functools.partial(Clock, seconds, date))
        begun = date()
        with pytest.raises(Crash):
            train(config, workdir)
        before, began = tiny.metrics(workdir), (workdir / "clock.json").read_text()
        crashes.clear()
        train(config, workdir)
    return dict(
        config=config,
        before=before,
        began=(began, (workdir / "clock.json").read_text()),
        wall=date() - begun,
        lines=[line for line in tiny.metrics(workdir) if "loss" in line],
    )


def test_waiting_for_data_is_told_from_validating_and_compiling(crashed):
    assert [line["step"] for line in crashed["lines"]] == [2, 4, 6, 8, 10, 12]
    for line in crashed["lines"]:
        waited = line["data_wait"] * line["seconds_per_step"]
        assert DATA <= waited <= line["seconds_per_step"] < DATA + VALIDATION / 2
        assert line["clips_per_second"] == pytest.approx(4 / line["seconds_per_step"])


def test_rates_are_of_the_operations_of_the_model(crashed):
    for line in crashed["lines"]:
        operations = line["flops_per_second"] * line["seconds_per_step"]
        assert operations == pytest.approx(model_flops(crashed["config"]))
        assert line["mfu"] == pytest.approx(line["flops_per_second"] / 1e12)


def test_updates_lost_in_a_crash_are_not_productive(crashed):
    lines, last = crashed["lines"], crashed["lines"][-1]
    assert crashed["began"][0] == crashed["began"][1]
    seconds = [line["productive_seconds"] for line in lines]
    assert seconds == sorted(seconds)
    # Each of the twelve updates counts once, also the first one of each process.
    assert last["productive_seconds"] == pytest.approx(
        sum(2 * line["seconds_per_step"] for line in lines), rel=0.2
    )
    assert last["goodput"] * crashed["wall"] >= last["productive_seconds"]
    # Two updates were lost. After updates 3, 6 and 9, a validation came before the last line.
    idle = 2 * COMPILING + 3 * VALIDATION + 2 * DATA
    elapsed = last["productive_seconds"] / last["goodput"]
    assert elapsed == pytest.approx(12 * DATA + idle, abs=0.9 * DATA)


def test_a_device_of_unknown_peak_has_no_mfu():
    assert clock_module.utilisation(6.0, 2.0, "some") == {"flops_per_second": 3.0}
    known = clock_module.utilisation(197e12, 2.0, "TPU v5 lite")
    assert known == {"flops_per_second": 98.5e12, "mfu": 0.5}
