"""The schedule of a run, and a bar whose time left does not contain compiling."""

import time

import pytest

from stunet.train.events import Due, Events
from stunet.train.measured.metrics import Progress

EVENTS = Events(
    steps=20, report_every=4, save_every=6, validate_every=10, preview_every=5, evaluate_every=7
)
NOTHING = Due()


@pytest.mark.parametrize("step", range(1, 21))
def test_events_come_every_so_many_updates_and_the_last_update_is_saved(step):
    due, last = EVENTS.due(step, stop=False), step == 20
    assert due.save == (step % 6 == 0 or last)
    # A checkpoint is always reported, so that the metrics tell what it is worth.
    assert due.report == (step % 4 == 0 or due.save)
    assert due.validate == (step % 10 == 0)
    assert due.preview == (step % 5 == 0)
    assert due.evaluate == (step % 7 == 0 or last)


def test_a_run_that_a_signal_ends_is_reported_and_saved_and_no_more():
    assert EVENTS.due(9, stop=False) == NOTHING
    assert EVENTS.due(9, stop=True) == Due(report=True, save=True)
    # An evaluation takes too long for the time that a stopped process is given.
    assert EVENTS.due(14, stop=True) == Due(report=True, save=True)


@pytest.mark.parametrize("step", range(21))
def test_measurements_that_a_stop_prevented_are_missed(step):
    due = EVENTS.due(step, stop=False)
    every = EVENTS.missed(step, ["step", "loss"])
    assert (every.validate, every.evaluate) == (
        step > 0 and due.validate,
        step > 0 and due.evaluate,
    )
    assert not EVENTS.missed(step, ["val/loss", "val/loss_t=0.1"]).validate
    assert not EVENTS.missed(step, ["eval/speed"]).evaluate
    # Everything else belongs to the update itself.
    assert Due(validate=every.validate, evaluate=every.evaluate) == every


def test_an_event_that_never_happens():
    never = Events(steps=8, report_every=1, save_every=4, validate_every=0, preview_every=0)
    dues = [never.due(step, stop=step == 8) for step in range(1, 9)]
    assert not any(due.validate or due.preview for due in dues)


def test_the_time_left_does_not_contain_compiling(capsys):
    with Progress(total=10, done=2, show=True) as progress:
        with progress.compiling():
            time.sleep(0.5)
        begun = time.monotonic()
        progress.update(3)
        measured = progress.bar.format_dict
        assert measured["elapsed"] <= time.monotonic() - begun + 0.1 < 0.5
        assert measured["n"] - measured["initial"] == 1
    said = capsys.readouterr().err
    assert "compiling the update" in said
    assert "compiled in" in said


def test_no_rate_is_shown_for_an_update_that_compiled(capsys):
    with Progress(total=10, done=0, show=True) as progress:
        progress.report(loss=1.0, clips_per_second=None)
        assert progress.bar.postfix == "loss 1.0000"
        progress.report(loss=0.5, clips_per_second=3.0)
        assert progress.bar.postfix == "loss 0.5000, 3.0 clips/s"
