"""Metrics of `stunet evaluate` in a run that trains: when, of which clips, and what they decide."""

import dataclasses
import json
import math
import shutil
import sys

import numpy as np
import pytest
import tiny
from from_config import make_mesh, train

from stunet import configs, extensions
from stunet.configs.combinations import check_combinations
from stunet.errors import UserError
from stunet.evaluate import groups, in_training, run
from stunet.train.measured.metric_lines import read_values
from stunet.train.parts import make_parts, read_parts
from stunet.train.saved.checkpoint_names import steps
from stunet.train.saved.trained import find_step


def evaluated(**changes) -> configs.Config:
    """A run of 4 updates that is evaluated and saved after every second one."""
    keys = {
        "train.steps": 4,
        "checkpoint.every": 2,
        "evaluate.every": 2,
        "evaluate.num": 6,
        "evaluate.metrics": ("coherence", "flow"),
        "data.source": "motions",
        "data.frames": 8,
        "data.height": 16,
        "data.width": 16,
        "log.trackers": (),
        "seed": 3,
    }
    return configs.replace(tiny.config(model=tiny.ONE_LEVEL_KEYS), keys | changes)


def evaluations(workdir) -> list[dict]:
    return [line for line in tiny.metrics(workdir) if "evaluation_seconds" in line]


def without_times(line: dict) -> dict:
    return {name: value for name, value in line.items() if not name.endswith("seconds")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    keys = {"checkpoint.keep": 1, "checkpoint.keep_best": "eval/flow_distance"}
    train(evaluated(**keys), workdir)
    return workdir


def test_metrics_are_those_of_stunet_evaluate(finished, tmp_path):
    lines = evaluations(finished)
    assert [line["step"] for line in lines] == [2, 4]
    found = run.evaluate(
        finished, metrics="coherence,flow", num=6, seed=3, batch_size=4, out=tmp_path
    )
    written = json.loads(found.file.read_text())["metrics"]
    assert {"coherent", "flow_distance"} <= set(written)
    last = {name[5:]: v for name, v in lines[-1].items() if name.startswith("eval/")}
    assert last.keys() == written.keys()
    for name, value in written.items():
        assert last[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_a_run_with_autoguidance_is_told_that_it_is_evaluated_without(finished):
    guided = {"sample.autoguidance_scale": 2.0, "sample.autoguidance_from": "2"}
    for changes in (guided, {}):
        told, config = [], configs.replace(evaluated(), changes)
        in_training.make_evaluation(make_parts(config), finished, make_mesh(config), told.append)
        assert ["without autoguidance" in sentence for sentence in told] == [True] * bool(changes)


def test_the_time_of_evaluations_is_not_that_of_updates(finished):
    lines = tiny.metrics(finished)
    spent = [line["evaluation_seconds"] for line in evaluations(finished)]
    assert 0 < spent[0] < spent[1]
    # The first evaluation compiles, which takes longer than all updates after the first.
    assert max(line["seconds_per_step"] for line in lines[1:] if "loss" in line) < spent[0]


def test_the_best_checkpoint_stays_and_is_found(finished):
    values = read_values(finished / "metrics.jsonl", "eval/flow_distance")
    best = min(values, key=values.get)
    # The last checkpoint is measured after it is saved, and no later one removes the first.
    assert {4, best} <= set(steps(finished))
    assert find_step(finished, read_parts(finished, checkpoint="best")) == best
    assert find_step(finished, read_parts(finished)) == 4
    assert find_step(finished, read_parts(finished, checkpoint="4")) == 4
    with pytest.raises(UserError, match=r"no checkpoint after update 3 in .*; there are .*4, and"):
        find_step(finished, read_parts(finished, checkpoint="3"))


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(finished, tmp_path):
    """A run was killed in the evaluation after it saved its last checkpoint."""
    workdir = shutil.copytree(finished, tmp_path / "killed")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert "eval/coherent" in lines[-1]
    (workdir / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    again = configs.read(workdir / "config.json")
    train(again, workdir)
    for line, same in zip(tiny.metrics(workdir), map(json.loads, lines), strict=True):
        assert without_times(line) == without_times(same)
    # Once more, and nothing is left to do.
    train(again, workdir)
    assert len(tiny.metrics(workdir)) == len(lines)


class Killed(Exception):
    pass


def test_a_killed_run_continues_bitwise(finished, tmp_path, monkeypatch):
    measure, calls = in_training.InTraining.measure, []

    def killed_at_the_second(self, params, step):
        calls.append(step)
        if len(calls) == 2:
            raise Killed
        return measure(self, params, step)

    monkeypatch.setattr(in_training.InTraining, "measure", killed_at_the_second)
    workdir, again = tmp_path / "killed", configs.read(finished / "config.json")
    with pytest.raises(Killed):
        train(again, workdir)
    train(again, workdir)
    lines, whole = tiny.metrics(workdir), tiny.metrics(finished)
    assert [without_times(line) for line in evaluations(workdir)] == [
        without_times(line) for line in evaluations(finished)
    ]
    losses = [[line["loss"] for line in of if "loss" in line] for of in (lines, whole)]
    assert losses[0] == losses[1]


def test_a_metric_that_fails_does_not_end_the_run(finished, tmp_path, monkeypatch, capsys):
    pixels = dataclasses.replace(groups.METRIC_GROUPS["pixels"])

    def measure(clips, scene, borders):
        # Real clips of this source are exactly black and white at most places.
        if len(np.unique(clips)) > 1000:
            raise ZeroDivisionError("no motion")
        return pixels.measure(clips, scene, borders)

    failing = dataclasses.replace(pixels, measure=measure)
    monkeypatch.setitem(groups.METRIC_GROUPS, "pixels", failing)
    metrics = {"evaluate.metrics": ("coherence", "pixels"), "evaluate.every": 4}
    train(evaluated(**metrics), tmp_path / "run")
    (line,) = evaluations(tmp_path / "run")
    assert "eval/coherent" in line
    assert "eval/frame_error" not in line
    assert all(math.isfinite(value) for value in line.values())
    error = capsys.readouterr().err
    assert "the metric 'pixels' failed after update 4 (ZeroDivisionError: no motion)" in error


# A user's own group, which has a companion and compares sets of clips.
OWN = """
import numpy as np

from stunet.evaluate.groups import MetricGroup
from stunet.evaluate.metrics import Metric


def measure(clips, scene, borders):
    brightness = clips.mean(axis=(1, 2, 3, 4))
    return {"brightness": brightness, "brightnesses": brightness}


def compare(ours, theirs, shape):
    return {"offset": float(ours["brightnesses"].mean() - theirs["brightnesses"].mean())}


ROWS = {
    "brightness": Metric("brightness", "the mean brightness", better="higher"),
    "offset": Metric("offset", "the difference from training clips"),
}
light = MetricGroup("brightness", measure, compare, companions=("flow",), rows=ROWS)
dark = MetricGroup("brightness", lambda clips: {}, rows=ROWS)
"""


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """Makes the trusted module `own_metrics`."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "own_metrics.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "package")
    monkeypatch.setenv(extensions.TRUST, "own_metrics")
    yield
    sys.modules.pop("own_metrics", None)


OWN_KEYS = {
    "evaluate.metrics": ("own_metrics:light",),
    "checkpoint.keep": 1,
    "checkpoint.keep_best": "eval/brightness",
    "checkpoint.best_is": "highest",
}


@pytest.mark.slow
@pytest.mark.usefixtures("own_package")
def test_a_users_own_metric_is_measured_and_decides_which_checkpoint_is_the_best(tmp_path):
    workdir = tmp_path / "run"
    train(evaluated(**OWN_KEYS), workdir)
    lines = evaluations(workdir)
    assert [line["step"] for line in lines] == [2, 4]
    found = run.evaluate(
        workdir, metrics="own_metrics:light", num=6, seed=3, batch_size=4, out=tmp_path / "out"
    )
    # The samples of the last evaluation are the same clips.
    brightness, reference = found.generated["brightness"], found.generated["offset"][0]
    assert lines[-1]["eval/brightness"] == pytest.approx(brightness.mean(), abs=1e-5)
    assert lines[-1]["eval/offset"] == pytest.approx(reference, abs=1e-5)
    assert "eval/flow_distance" in lines[-1]  # Of its companion.
    assert lines[0]["eval/brightness"] != lines[1]["eval/brightness"]
    values = {line["step"]: line["eval/brightness"] for line in lines}
    best = max(values, key=values.get)
    assert find_step(workdir, read_parts(workdir, checkpoint="best")) == best


@pytest.mark.usefixtures("own_package")
def test_a_users_own_metric_is_checked_before_training(tmp_path, monkeypatch):
    def begin(**keys):
        changed = evaluated(**OWN_KEYS | keys)
        mesh = make_mesh(changed)
        in_training.make_evaluation(make_parts(changed), tmp_path, mesh, print).begin()

    with pytest.raises(UserError, match=r"set checkpoint\.best_is to .highest."):
        begin(**{"checkpoint.best_is": "lowest"})
    with pytest.raises(UserError, match=r"^evaluate.metrics.*no metric: it has a measure without"):
        begin(**{"evaluate.metrics": ("own_metrics:dark",)})
    with pytest.raises(UserError, match=r"^evaluate.metrics.*own_metrics has no lite"):
        begin(**{"evaluate.metrics": ("own_metrics:lite",)})
    monkeypatch.setenv(extensions.TRUST, "")
    del sys.modules["own_metrics"]
    with pytest.raises(UserError, match="add --trust own_metrics to the command"):
        begin()
    assert "own_metrics" not in sys.modules


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"evaluate.metrics": ("fvd",), "evaluate.num": 15}, "I3D needs clips of 9 frames"),
        (
            {"checkpoint.keep_best": "eval/flow_distanse"},
            "unknown metric for checkpoint.keep_best 'eval/flow_distanse'; did you mean "
            "'eval/flow_distance'",
        ),
        ({"checkpoint.keep_best": "eval/right_digit"}, "choose one of eval/coherent, eval/dev"),
        (
            {"checkpoint.keep_best": "eval/coherent"},
            "eval/coherent is better where it is higher; set checkpoint.best_is to 'highest'",
        ),
    ],
)
def test_what_cannot_be_measured_is_told_before_training(tmp_path, keys, sentence):
    changed = evaluated(**keys)
    with pytest.raises(UserError, match=sentence):
        in_training.make_evaluation(
            make_parts(changed), tmp_path, make_mesh(changed), print
        ).begin()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (dict(evaluate=dict(every=2, metrics=())), "evaluate.metrics is empty"),
        (dict(evaluate=dict(every=2), upscale=dict(factor=2)), "set evaluate.every to 0"),
        (dict(checkpoint=dict(keep_best="eval/fvd")), "evaluate.every is 0, so that nothing"),
        (
            dict(checkpoint=dict(keep_best="eval/fvd", every=3), evaluate=dict(every=2)),
            "checkpoint.every is 3; .* multiple of 2",
        ),
        (dict(sample=dict(checkpoint="last")), "sample.checkpoint is 'last'; choose 'newest'"),
    ],
)
def test_configs_that_cannot_hold_are_refused(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        check_combinations(tiny.config(**keys))


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(finished, tmp_path):
    file, workdir = tmp_path / "config.json", tmp_path / "two"
    configs.write(configs.read(finished / "config.json"), file)
    job = tiny.launch(*tiny.command("train", f"--config={file}", f"--workdir={workdir}"))
    _, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors
    for line, same in zip(evaluations(workdir), evaluations(finished), strict=True):
        assert line.keys() == same.keys()
        for name in line:
            if name.startswith("eval/"):
                assert line[name] == pytest.approx(same[name], rel=1e-3, abs=1e-4), name
