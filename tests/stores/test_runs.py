"""Runs whose working directory is in a bucket, on emulators."""

import collections
import json
import os
import pathlib
import shutil
import signal

import event_files
import jax
import pytest
import servers
import training
from processes import PATIENCE_SECONDS, Server

from stunet.stores import addresses, mirror, objects

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The result of a run in a directory of this machine."""
    scratch = tmp_path_factory.mktemp("local")
    with Server(scratch) as server:
        ended = training.finish(server, scratch / "run")
    assert ended.status == 0, ended.output
    return training.result(scratch / "run")


# Both kinds of stores pass through the same code but for their clients, which other tests here use.
@pytest.fixture(scope="module", params=["gs", pytest.param("s3", marks=pytest.mark.long)])
def store_(request, tmp_path_factory):
    """A store with faults to switch on, and a server of processes that use it."""
    scratch = tmp_path_factory.mktemp(request.param)
    faults = scratch / "faults"
    faults.touch()
    (scratch / "experiment.py").write_text(training.EXPERIMENT)
    with (
        servers.running(request.param, str(faults)) as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        servers.forget()
        with Server(scratch) as server:
            yield f"{request.param}://{servers.BUCKET}", server, scratch, faults
    servers.forget()


def _words(scratch: pathlib.Path, run: str) -> tuple[str, ...]:
    return ("train", f"--config={scratch / 'experiment.py'}", f"--workdir={run}")


def _result(run: str) -> dict:
    copy = addresses.local(run)
    mirror.pull(copy)
    return training.result(copy, mirror.place(copy, "checkpoints"))


def test_killed_run_ends_as_one_on_a_disk(store_, expected):
    bucket, server, scratch, faults = store_
    run, kills = f"{bucket}/killed", 0
    words = (*_words(scratch, run), "--config.profile.start=4", "--config.profile.steps=2")
    faults.write_text("20")  # The store refuses every twentieth request.
    for pattern in ("2/", "6/"):
        process = server.start(*words)
        while not process.has_ended(0.05):
            if any(f"checkpoints/{pattern}" in name for name in objects.listing(run)):
                break
        process.signal(signal.SIGKILL)
        ended = process.wait()
        assert not ended.unseemly, ended.output
        kills += ended.status == -9
        # Another machine goes on: nothing of the run is left here.
        shutil.rmtree(scratch / "cache")
    assert kills
    ended = server.run(*words)
    assert ended.status == 0, ended.output
    faults.write_text("")
    assert not training.differences(_result(run), expected)
    names = objects.listing(run)
    assert not [name for name in names if name.startswith(".")]
    _check_events_and_profile(run)
    # All commands take the address, and write there.
    for words in (
        ("sample", "text", f"--workdir={run}", "--num=1", "--prompt=any"),
        ("report", run),
        ("doctor", f"--workdir={run}"),
        ("export", f"--workdir={run}", "--format=safetensors", f"--out={bucket}/exported"),
    ):
        ended = server.run(*words)
        assert ended.status == 0, ended.output
        assert str(scratch / "cache") not in ended.output, ended.output
    names = objects.listing(run)
    assert "report.html" in names
    assert any(name.endswith(".gif") for name in names)
    assert any(name.endswith(".safetensors") for name in objects.listing(f"{bucket}/exported"))


def _check_events_and_profile(run: str) -> None:
    """Checks that a download has each point once, and traces of updates 4 and 5."""
    shutil.rmtree(addresses.local(run))
    copy = mirror.fetched(run)
    lines = map(json.loads, (copy / "metrics.jsonl").read_text().splitlines())
    wanted = {(line["step"], name) for line in lines for name in line if name != "step"}
    points = [point[:2] for point in event_files.points(copy) if "system/" not in point[1]]
    assert collections.Counter(points) == collections.Counter(wanted)
    events = (
        event
        for trace in copy.glob("profile/plugins/profile/*/*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    )
    assert {dict(e.stats)["step_num"] for e in events if e.name == "train"} == {4, 5}


# One member, and a step that needs it.
_SWEEP = f"""{training.EXPERIMENT}
from stunet.sweep.members import Member, Step


def get_sweep():
    page = ("report", "{{sweep}}/one", "--out", "{{sweep}}/page.html")
    return [Member("one", get_config()), Step("page", page, ("one",), "page.html")]
"""


def test_a_killed_sweep_goes_on_and_its_report_is_in_the_bucket(store_):
    bucket, server, scratch, _ = store_
    (scratch / "sweep.py").write_text(_SWEEP)
    sweep = f"{bucket}/sweep"
    words = ("sweep", f"--config={scratch / 'sweep.py'}", f"--workdir={sweep}")
    process = server.start(*words)
    while not process.has_ended(0.05):
        if any("one/checkpoints/2/" in name for name in objects.listing(sweep)):
            break
    # The machine fails: the sweep and its member end at once.
    trains = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.signal(signal.SIGKILL)
    for pid in trains:
        os.kill(int(pid), signal.SIGKILL)
    assert process.wait().status == -9
    assert trains
    shutil.rmtree(scratch / "cache")
    assert "sweep.json" in objects.listing(sweep)
    # A sweep sleeps while its member trains.
    ended = server.start(*words).wait(idle=PATIENCE_SECONDS)
    assert ended.status == 0, ended.output
    assert "one: continues from about update" in ended.output
    assert f"stunet report {sweep}" in ended.output
    assert str(scratch / "cache") not in ended.output
    found = _result(f"{sweep}/one")
    lines = (int(found[f"line {i}, step"]) for i in range(training.STEPS))
    assert [*lines] == [*range(1, training.STEPS + 1)]
    assert f"line {training.STEPS}, step" not in found
    shutil.rmtree(scratch / "cache")
    ended = server.run("report", sweep)
    assert ended.status == 0, ended.output
    assert {"one/log.txt", "page/log.txt", "page.html", "report.html"} <= objects.listing(
        sweep
    ).keys()


def test_a_second_training_is_refused(store_, monkeypatch):
    bucket, server, scratch, _ = store_
    run = f"{bucket}/twice"
    first = server.start(*_words(scratch, run), "--config.train.steps=100000")
    try:
        while objects.read(f"{run}/.lease.json") is None and not first.has_ended(0.05):
            pass
        second = server.run(*_words(scratch, run), "--config.train.steps=100000")
        assert second.status == 1
        assert f"a training of this machine is running in {run}" in second.output
        # From another machine, with a cache of its own.
        monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / "elsewhere"))
        with Server(scratch) as elsewhere:
            third = elsewhere.run(*_words(scratch, run), "--config.train.steps=100000")
        assert third.status == 1
        assert f"a training is running in {run}" in third.output
    finally:
        first.signal(signal.SIGTERM)
        ended = first.wait()
    assert ended.status == 0, ended.output
    assert "continues from there" in ended.output


def test_what_is_missing_is_told(store_):
    bucket, server, scratch, _ = store_
    scheme = bucket.partition(":")[0]
    for words in (
        _words(scratch, f"{scheme}://nowhere/run"),
        ("sample", "text", "--prompt=any", f"--workdir={bucket}/no-run"),
    ):
        ended = server.run(*words)
        assert ended.status == 1
        assert not ended.unseemly, ended.output
        assert words[-1].partition("=")[2] in ended.output
