"""Runs a sweep from the command line: to its end, with a failure, stopped, by a scheduler."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tiny

# One that trains, one that cannot, and steps that need them. The step's command is the cheapest.
SWEEP = """
import dataclasses
import tiny
from stunet.sweep.members import Member, Step

def get_sweep():
    one_level = dict(
        channel_multipliers=(1,),
        attention_levels=(False,),
        temporal_factors=(1,),
        temporal=False,
    )
    good = tiny.config(model=one_level)
    bad = dataclasses.replace(good, mesh=dataclasses.replace(good.mesh, data=3))
    report = ("report", "{sweep}/good", "--out", "{sweep}/page.html")
    return [
        Member("bad", bad),
        Member("good", good),
        Step("after_good", report, ("good",), "page.html"),
        Step("after_bad", ("report", "{sweep}/bad"), ("bad",), "bad/report.html"),
    ]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> pathlib.Path:
    file = tmp_path_factory.mktemp("sweeps") / "sweep.py"
    file.write_text(SWEEP)
    return file


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(pathlib.Path(tiny.__file__).parent), *sys.path])
    return tiny.environment() | {"PYTHONPATH": path}


def sweep(file, workdir, *arguments) -> subprocess.CompletedProcess:
    command = tiny.command("sweep", f"--config={file}", f"--workdir={workdir}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)


def test_failed_member_stops_no_other_and_what_is_done_is_skipped(file, tmp_path):
    workdir = tmp_path / "a sweep"
    first = sweep(file, workdir, "--jobs=2")
    assert first.returncode == 1
    assert "Traceback" not in first.stderr
    assert "good: starts" in first.stderr
    assert "good: done in" in first.stderr
    assert "after_good: done in" in first.stderr
    assert "after_bad: not run, since bad failed" in first.stderr
    last = first.stderr.splitlines()[-1]
    assert last.startswith("stunet sweep: 2 of 4 failed")
    # With its own sentence, and where to read the rest.
    assert f"bad ({workdir / 'bad' / 'log.txt'}): " in last
    assert "does not fit 1 devices" in last
    assert (workdir / "page.html").is_file()
    assert max(int(p.name) for p in (workdir / "good" / "checkpoints").iterdir()) == 8

    before = {p: p.stat().st_mtime_ns for p in (workdir / "good" / "checkpoints").rglob("*")}
    log = (workdir / "good" / "log.txt").read_text()
    again = sweep(file, workdir)
    assert again.returncode == 1
    assert "2 of 4 were done already" in again.stderr
    assert "good: starts" not in again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (workdir / "good" / "log.txt").read_text() == log

    # Nobody needs the checkpoints of `good` any more, so they may go; with its step's file, they
    # may not.
    shutil.rmtree(workdir / "good" / "checkpoints")
    left = sweep(file, workdir, "--dry-run").stdout
    assert left.count("\n") == 2
    assert "good" not in left
    (workdir / "page.html").unlink()
    assert len(sweep(file, workdir, "--dry-run").stdout.splitlines()) == 4
    (workdir / "page.html").touch()

    # The same sweep with the mistake mended, which no update depends on, is the same sweep.
    mended = sweep(file, workdir, "--config.mesh.data=1", "--dry-run")
    assert mended.returncode == 0, mended.stderr
    train, step = mended.stdout.splitlines()
    assert train.startswith("stunet train --config ")
    assert step.endswith("  # after bad")


@pytest.mark.slow
def test_printed_commands_run_as_printed(file, tmp_path):
    workdir = tmp_path / "it's one"
    printed = sweep(file, workdir, "--dry-run", "--config.mesh.data=1", "--config.train.steps=2")
    assert printed.returncode == 0, printed.stderr
    lines = printed.stdout.splitlines()
    assert len(lines) == 4
    assert not list(workdir.rglob("checkpoints"))
    # The sweep's file may be gone, or another, by the time they run.
    shim = tmp_path / "bin" / "stunet"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m stunet.cli "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", lines[1]], check=True, env=environment() | {"PATH": path}, timeout=300
    )
    assert (workdir / "good" / "checkpoints" / "2").is_dir()
    left = sweep(file, workdir, "--dry-run", "--config.mesh.data=1", "--config.train.steps=2")
    assert left.stdout.splitlines() == [lines[0], *lines[2:]]


@pytest.mark.slow
def test_sigterm_stops_the_members_which_save(file, tmp_path):
    workdir = tmp_path / "stopped"
    flags = ["--config.train.steps=100000", "--config.checkpoint.every=100000"]
    command = tiny.command("sweep", f"--config={file}", f"--workdir={workdir}", *flags)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    metrics = workdir / "good" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = sweep(file, workdir, *flags)
    assert second.returncode == 1
    assert "a sweep is running in" in second.stderr
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    (saved,) = (workdir / "good" / "checkpoints").iterdir()
    assert f"good: stopped at update {saved.name}" in stderr
    assert "the same command continues" in stderr.splitlines()[-1]


def test_mistake_runs_nothing(file, tmp_path):
    done = sweep(file, tmp_path / "new", "--config.data.frames=0")
    assert done.returncode == 1
    assert done.stderr == "stunet sweep: member 'bad': data.frames is 0; it must be at least 1\n"
    assert not (tmp_path / "new").exists()
