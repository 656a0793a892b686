"""A run that continues may change some keys, if each is named; the work directory notes it."""

import json
import pathlib

import pytest
import tiny
from from_config import learning_rate

from stunet import cli, configs
from stunet.errors import UserError
from stunet.train.loop import train
from stunet.train.parts import make_parts, with_fingerprint
from stunet.train.workdir import note_changes, note_config

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "continuing.md"


def changes(workdir: pathlib.Path) -> list[dict]:
    file = workdir / "changes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_keys_exist_depend_on_updates_and_are_in_the_docs():
    keys = {key for key, _ in configs.fields()}
    for key in configs.MAY_CHANGE_BY_NAME:
        assert key in keys
        assert key not in configs.MAY_CHANGE_ON_RESUME
        assert f"`{key}`" in DOCS.read_text()


def test_a_change_is_refused_unless_it_is_named_and_the_refusal_names_the_flag(tmp_path):
    note_config(tiny.config(), tmp_path)
    changed = tiny.config(train=dict(clip_norm=0.5, weight_decay=0.1))
    flag = "add --change train.weight_decay$"
    with pytest.raises(UserError, match=rf"train.weight_decay is 0.0 there and 0.1 here; .*{flag}"):
        note_config(changed, tmp_path, ["train.clip_norm"])
    with pytest.raises(UserError, match=r"seed is 0 there and 1 here; .* the same values$"):
        note_config(configs.replace(tiny.config(), {"seed": 1}), tmp_path)
    assert changes(tmp_path) == []
    assert configs.read(tmp_path / "config.json") == tiny.config()


def test_changes_are_noted_with_their_update_and_hold_from_then_on(tmp_path):
    note_config(tiny.config(), tmp_path)
    changed = tiny.config(train=dict(clip_norm=0.5), log=dict(every=7))
    note_config(changed, tmp_path, ["train.clip_norm", "train.steps"])
    # The run has not got to an update with the new value yet, but any run may change `log`.
    there = configs.flatten(configs.read(tmp_path / "config.json"))
    assert (there["train.clip_norm"], there["log.every"]) == (1.0, 7)
    (line,) = note_changes(changed, tmp_path, step=30)
    assert line == "train.clip_norm is 0.5 after update 30; it was 1.0"
    noted = [{"step": 30, "key": "train.clip_norm", "before": 1.0, "after": 0.5}]
    assert changes(tmp_path) == noted
    assert configs.read(tmp_path / "config.json") == changed
    # The same command once more, as a launcher gives it when it starts the run again.
    note_config(changed, tmp_path, ["train.clip_norm", "train.steps"])
    assert note_changes(changed, tmp_path, step=40) == []
    assert changes(tmp_path) == noted


def test_only_a_run_can_change(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/new holds no run that could continue"):
        note_config(tiny.config(), tmp_path / "new", ["train.steps"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("train.learning_rat=1", "did you mean 'train.learning_rate'? choose one of "),
        ("model.channels=8", "unknown key of --change 'model.channels'; choose one of "),
        ("train.clip_norm=0", "train.clip_norm is 0.0; it must be above 0"),
    ],
)
def test_keys_that_may_not_change_are_refused(tmp_path, capsys, change, sentence):
    arguments = ["--config=quickstart", f"--workdir={tmp_path / 'new'}", f"--change={change}"]
    assert cli.main(["train", *arguments]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_finished_run_is_extended_with_another_learning_rate(tmp_path):
    def config(**keys):
        return with_fingerprint(tiny.config(model=tiny.ONE_LEVEL_KEYS, train=keys))

    workdir = tmp_path / "run"
    assert train(make_parts(config(steps=4)), workdir) == 4
    assert train(make_parts(config(steps=4)), workdir) == 4
    longer = config(steps=7, learning_rate=1e-4)
    with pytest.raises(UserError, match=r"add --change train.steps --change train.learning_rate"):
        train(make_parts(longer), workdir)
    assert train(make_parts(longer), workdir, ["train.steps", "train.learning_rate"]) == 7
    rates = {line["step"]: line["learning_rate"] for line in tiny.metrics(workdir)}
    for step in range(1, 8):
        schedule = learning_rate(config(steps=4) if step <= 4 else longer)
        assert rates[step] == pytest.approx(float(schedule(step - 1)), rel=1e-6)
    assert [(each["step"], each["key"]) for each in changes(workdir)] == [
        (4, "train.steps"),
        (4, "train.learning_rate"),
    ]
    with pytest.raises(UserError, match=r"has done 7 updates, more than train.steps, which is 5"):
        train(make_parts(config(steps=5, learning_rate=1e-4)), workdir, ["train.steps"])
    assert configs.read(workdir / "config.json") == longer
