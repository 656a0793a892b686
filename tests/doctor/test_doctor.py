"""`stunet doctor` finds nothing in what is healthy, and names each thing that is broken."""

import dataclasses
import importlib
import json
import os
import shutil
from importlib import metadata

import numpy as np
import pytest
import tiny
from from_config import train
from packaging.requirements import Requirement

from stunet import cli
from stunet.data import media
from stunet.data.shots.layout import Spec
from stunet.doctor import devices, installation, workdir
from stunet.files import locked
from stunet.prepare.run import prepare


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A run on records, with two checkpoints."""
    place = tmp_path_factory.mktemp("healthy")
    (place / "videos").mkdir()
    clip = np.linspace(-1, 1, 64 * 16 * 16 * 3, dtype=np.float32).reshape(1, 64, 16, 16, 3)
    for name in "ab":
        media.write_mp4(place / "videos" / f"{name}.mp4", clip, 8)
    options = dict(val_fraction=0.2, val_seconds=1, progress=False, workers=1)
    prepare(place / "videos", place / "records", Spec(side=8, fps=8.0), **options)
    config = tiny.config(
        data=dict(source="clips", path=str(place / "records")),
        train=dict(steps=2),
        checkpoint=dict(every=1),
        model=tiny.ONE_LEVEL_KEYS,
    )
    train(config, place / "run")
    return place


@pytest.fixture
def place(healthy, tmp_path):
    """A copy of the run, to be broken, whose config names a copy of the records."""
    shutil.copytree(healthy, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["data"]["path"] = str(tmp_path / "records")
    file.write_text(json.dumps(config))
    return tmp_path


def bad(findings) -> dict[str, str]:
    """Returns what is wrong, by its subject."""
    return {f.subject: f"{f.said}; {f.remedy}" for f in findings if f.is_wrong}


def test_a_healthy_run_and_this_installation_are_well(place, capsys):
    assert cli.main(["doctor", "--workdir", str(place / "run")]) == 0
    printed = capsys.readouterr().out
    assert "WRONG" not in printed
    assert printed.splitlines()[-1] == "all is well"
    for subject in ("Python", "packages", "video", "cache", "devices", "checkpoint 2", "data, val"):
        assert f"ok     {subject} " in printed


def _flip_bits(place):
    for file in (place / "run" / "checkpoints" / "2" / "train").rglob("d/*"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def _put_pipe(place):
    file = place / "run" / "checkpoints" / "2" / "ema" / "_METADATA"
    file.unlink()
    os.mkfifo(file)


def _append(name: str, text: str):
    def change(place):
        with (place / "run" / name).open("a") as file:
            file.write(text)

    return change


def _write(name: str, text: str):
    return lambda place: (place / name).write_text(text)


def _cut_records(place):
    file = place / "records" / "shards" / "000000.array_record"
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "subject", "sentence"),
    [
        (lambda p: (p / "run" / "config.json").unlink(), "config.json", "config.json"),
        (_write("run/config.json", "{"), "config.json", "is not a config"),
        (_append("metrics.jsonl", '{"step": 2, "lo'), "metrics.jsonl", "line 3 is damaged"),
        (_append("metrics.jsonl", '{"step": 1}\n'), "metrics.jsonl", "not in order"),
        (_write("run/clock.json", '{"began": null}'), "clock.json", "clock.json"),
        (_write("run/clock.json", '{"began": 9e9}'), "clock.json", "still to come"),
        (_flip_bits, "checkpoint 2", "damaged"),
        (_put_pipe, "checkpoint 2", "_METADATA is no regular file"),
        (_cut_records, "data, train", "is damaged or cut short"),
        (lambda p: shutil.rmtree(p / "records"), "data, train", "records"),
        (lambda p: shutil.rmtree(p / "run"), "workdir", "is no directory"),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(place, change, subject, sentence):
    change(place)
    found = bad(workdir.check(place / "run"))
    assert sentence in found[subject]
    # The same fault may show in the split that is held out.
    assert {*found} <= {subject, "data, val"}


def test_nothing_is_changed(place):
    def content():
        files = (file for file in place.rglob("*") if file.is_file())
        return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    before = content()
    _flip_bits(place)
    damaged = content()
    assert before != damaged
    list(workdir.check(place / "run"))
    assert content() == damaged


def test_a_training_that_runs_is_no_fault(place):
    (place / "run" / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    with locked(place / "run", ""):
        findings = list(workdir.check(place / "run"))
    assert not bad(findings)
    assert any("a training is running" in finding.said for finding in findings)
    assert not any("unfinished" in finding.said for finding in findings)
    assert any("unfinished" in finding.said for finding in workdir.check(place / "run"))


def test_each_member_of_a_sweep_is_examined(place):
    (place / "sweep").mkdir()
    for name in ("a", "b"):
        shutil.copytree(place / "run", place / "sweep" / name)
    entries = [dict(name=name, arm="", seed=0) for name in ("a", "b", "not_begun")]
    manifest = dict(command=["sweep"], commit=None, entries=entries, question="")
    (place / "sweep" / "sweep.json").write_text(json.dumps(manifest))
    (place / "sweep" / "b" / "config.json").write_text("[]")
    findings = list(workdir.check(place / "sweep"))
    assert findings[0].said == "2 of 3 members have begun"
    assert list(bad(findings)) == ["config.json"]


def test_every_package_that_is_needed_can_be_imported_by_its_name():
    for needed in installation.requirements():
        importlib.import_module(installation.module(needed.name))


@pytest.mark.parametrize(
    ("version", "raised", "sentence"),
    [
        (None, None, "numpy: is not installed; run: pip install 'numpy<3'"),
        ("3.1", None, "numpy: has version 3.1; run: pip install 'numpy<3'"),
        ("2.2", ImportError("no libfoo.so\nmore"), "(ImportError: no libfoo.so); run: pip install"),
    ],
)
def test_a_package_that_does_not_fit_is_named(monkeypatch, version, raised, sentence):
    def find(name):
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    def import_module(name):
        if raised:
            raise raised

    monkeypatch.setattr(installation.metadata, "version", find)
    monkeypatch.setattr(installation.importlib, "import_module", import_module)
    finding = installation._package(Requirement("numpy<3"))
    assert sentence in f"{finding.subject}: {finding.said}; {finding.remedy}"


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    found = bad(installation.check())
    assert "cannot be written" in found["cache"]


def test_a_device_that_computes_wrongly_is_named(monkeypatch):
    monkeypatch.setattr(devices, "_TOLERANCE", 0)
    assert "is not NumPy's; do not train" in bad(devices.check())["devices"]


def test_an_accelerator_that_jax_does_not_use_is_told(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "_DRIVERS", {"gpu": (str(tmp_path / "nvidia*"),)})
    # The tests ask for the CPU.
    assert any("is there and not used" in finding.said for finding in devices.check())
    monkeypatch.setattr(devices, "_asked_platforms", lambda: None)
    assert "pip install 'stunet[cuda]'" in bad(devices.check())["gpu"]


def test_findings_are_lines():
    finding = installation.Finding("cache", "is there")
    assert str(finding) == "ok     cache           is there"
    assert str(dataclasses.replace(finding, is_wrong=True, remedy="go")).startswith("WRONG  cache")
