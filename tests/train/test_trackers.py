"""Programs that show a run: each value once, over kills, and no failure of theirs ends a run."""

import dataclasses
import json
import pathlib
import sys
import threading
import time

import event_files
import pytest
import tiny

from stunet import configs, extensions
from stunet.errors import UserError
from stunet.train.measured import trackers
from stunet.train.measured.metrics import Metrics
from stunet.train.measured.trackers.tracker import RunInfo

RUN = RunInfo(pathlib.Path("runs/one"), "id", {"seed": 0}, None)


class Recorder:
    """Keeps what it is shown."""

    def __init__(self, run=RUN):
        self.run, self.scalars_shown, self.pictures, self.closed = run, [], [], False

    def scalars(self, step, values):
        self.scalars_shown += [(step, name, value) for name, value in values.items()]

    def picture(self, step, name, path):
        self.pictures.append((step, name, path))

    def close(self):
        self.closed = True


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Returns a function that puts trackers of a run in `tmp_path` into the table."""

    def put(_step=0, **makers):
        for name, make in makers.items():
            monkeypatch.setitem(trackers.TRACKERS, name, make)
        told, run = [], dataclasses.replace(RUN, workdir=tmp_path)
        return trackers.Trackers(list(makers), run, told.append, _step), told

    return put


def test_each_tracker_gets_everything_in_order(use):
    first, second = Recorder(), Recorder()
    shown, told = use(one=lambda run: first, two=lambda run: second)
    for step in range(50):
        shown.scalars(step, {"loss": step / 2})
    shown.picture(50, "samples/clips", "x.gif")
    shown.close()
    for recorder in (first, second):
        assert recorder.scalars_shown == [(step, "loss", step / 2) for step in range(50)]
        assert recorder.pictures == [(50, "samples/clips", "x.gif")]
        assert recorder.closed
    assert not told


def test_a_tracker_that_fails_or_hangs_harms_no_other(use, monkeypatch):
    good, hanging = Recorder(), threading.Event()

    class Failing(Recorder):
        def scalars(self, step, values):
            raise ConnectionError("no route to host")

    class Quitting(Recorder):
        def scalars(self, step, values):
            sys.exit("no licence")

    class Hanging(Recorder):
        def scalars(self, step, values):
            hanging.wait()

    def refuses(run):
        raise RuntimeError("not logged in")

    monkeypatch.setattr(trackers, "_MOST_WAITING", 100)
    makers = dict(bad=Failing, hangs=Hanging, quits=Quitting, refuses=refuses)
    shown, told = use(**makers, good=lambda run: good)
    begun = time.monotonic()
    for step in range(300):
        shown.scalars(step, {"loss": 1.0})
        time.sleep(0.001)
    shown.close(seconds=0.5)
    assert time.monotonic() - begun < 30
    hanging.set()
    assert [step for step, *_ in good.scalars_shown] == list(range(300))
    # Each says what happened, once.
    names = sorted(sentence.split()[2] for sentence in told)
    assert names == ["bad", "hangs", "hangs", "quits", "refuses"]
    text = " ".join(told)
    assert "ConnectionError: no route to host" in text
    assert "RuntimeError: not logged in" in text
    assert "SystemExit: no licence" in text
    assert "100 calls wait" in text
    assert "did not end in 0.5 s" in text


def test_a_run_that_continues_after_a_kill_shows_nothing_twice(use, tmp_path):
    recorder, second, late = Recorder(), Recorder(), Recorder()
    (tmp_path / "samples").mkdir()

    def run(first, last, killed=False, **more):
        shown, told = use(first - 1, one=lambda run: recorder, **more)
        metrics = Metrics(tmp_path, first - 1, write=True, trackers=shown)
        for step in range(first, last + 1):
            metrics.scalars(step, {"loss": step / 4}, {"system/busy_cores": 1.0})
            if step % 2 == 0:
                metrics.scalars(step, {"val/loss": step / 8})
                picture = tmp_path / "samples" / f"step_{step:08d}.gif"
                metrics.picture(step, "samples/clips", str(picture))
                picture.touch()
        metrics.__exit__()
        if killed:
            # After the line of training and before that of validation.
            file = tmp_path / "metrics.jsonl"
            lines = file.read_text().splitlines()
            recorder.scalars_shown.pop()
            recorder.pictures.pop()
            (tmp_path / "samples" / f"step_{last:08d}.gif").unlink()
            file.write_text("\n".join(lines[:-1]) + "\n")
        return told

    def cannot(run):
        raise RuntimeError("not logged in")

    run(1, 6, killed=True)
    # Updates 4 to 6 are done again. One tracker is new, and another one cannot begin yet.
    (sentence,) = run(4, 7, second=lambda run: second, late=cannot)
    assert "RuntimeError: not logged in" in sentence
    for first, last in ((8, 8), (9, 9)):
        assert not run(first, last, second=lambda run: second, late=lambda run: late)
    expected = {(step, "loss", step / 4) for step in range(1, 10)}
    expected |= {(step, "system/busy_cores", 1.0) for step in range(1, 10)}
    expected |= {(step, "val/loss", step / 8) for step in range(2, 10, 2)}
    assert len(recorder.scalars_shown) == len(expected)
    assert set(recorder.scalars_shown) == expected
    assert [step for step, *_ in recorder.pictures] == [2, 4, 6, 8]
    # New trackers have all that was on disk, in order, and everything that came after.
    for new, since in ((second, 3), (late, 7)):
        points = {
            point for point in expected if point[1] != "system/busy_cores" or point[0] > since
        }
        assert len(new.scalars_shown) == len(points)
        assert set(new.scalars_shown) == points
        assert [step for step, *_ in new.scalars_shown] == sorted(s for s, *_ in new.scalars_shown)
        assert new.pictures == recorder.pictures
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()]
    assert steps == sorted(steps)
    assert len(steps) == 13


def test_tensorboard_has_each_point_once_wherever_its_file_was_cut(tmp_path):
    """A bucket holds the file as it was at some moment before the kill, and other files not."""

    def show(run, steps):
        shown = trackers.Trackers(["tensorboard"], run, told.append, steps[0] - 1)
        for step in steps:
            shown.scalars(step, {"loss": step / 4, "val/loss_t=0.1": step / 8}, again=("loss",))
        shown.close()

    told, whole = [], dataclasses.replace(RUN, workdir=tmp_path / "whole")
    whole.workdir.mkdir()
    show(whole, range(1, 4))
    (file,) = whole.workdir.glob("events.*")
    content = file.read_bytes()
    expected = {(step, name) for step in range(1, 6) for name in ("loss", "val/loss_t_0.1")}
    for size in range(0, len(content) + 1, 23):
        run = dataclasses.replace(RUN, workdir=tmp_path / str(size))
        run.workdir.mkdir()
        (run.workdir / "events.out.tfevents.1.here").write_bytes(content[:size])
        lines = [{"step": step, "loss": step / 4, "val/loss_t=0.1": step / 8} for step in (1, 2)]
        (run.workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        show(run, range(3, 6))  # The checkpoint was saved after update 2.
        points = event_files.points(run.workdir)
        assert sorted(point[:2] for point in points) == sorted(expected), size
        assert all(v == (s / 4 if name == "loss" else s / 8) for s, name, v in points)
    assert not told


def test_configs_name_trackers(monkeypatch):
    def read(text):
        return configs.override(tiny.config(), [f"--config.log.trackers={text}"]).log.trackers

    assert read("tensorboard,wandb") == read("('tensorboard', 'wandb')") == ("tensorboard", "wandb")
    assert read("") == read("()") == ()
    with pytest.raises(UserError, match=r"log.trackers is 'wanbd'; did you mean 'wandb'"):
        read("wanbd")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'mlflow', whose package is not .* 'stunet\[trackers\]'"):
        trackers.check(["mlflow"])
    monkeypatch.setenv(extensions.TRUST, "test_trackers")
    trackers.check(["test_trackers:Recorder"])
