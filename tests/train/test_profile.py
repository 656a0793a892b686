"""Traces contain the chosen updates, and a stopped run ends with the chosen exit status."""

import pathlib
import re
import signal
import subprocess
import time

import jax
import pytest
import tiny


def traced(workdir: pathlib.Path) -> dict[str, list[tuple[int, int]]]:
    """Returns (number, nanoseconds) of each update in each trace, in order, by the trace's name."""
    found = {}
    for file in (workdir / "profile").rglob("*.xplane.pb"):
        events = [
            (event.start_ns, dict(event.stats)["step_num"], event.duration_ns)
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes
            for line in plane.lines
            for event in line.events
            if event.name == "train"
        ]
        found[file.parent.name] = [(update, duration) for _, update, duration in sorted(events)]
    return found


def updates(workdir: pathlib.Path) -> dict[str, list[int]]:
    return {name: [update for update, _ in events] for name, events in traced(workdir).items()}


def partial(workdir: pathlib.Path) -> list[pathlib.Path]:
    return list(workdir.glob(".profile*"))


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list:
    experiment = tiny.experiment(tmp_path_factory.mktemp("experiment"))
    return ["train", f"--config={experiment}", *tiny.ONE_LEVEL]


def test_trace_holds_the_updates_asked_for_and_no_other(command, tmp_path):
    # A process that is killed while it traces leaves such a directory.
    (tmp_path / "run" / ".profile.partial" / "plugins" / "profile" / "of_another").mkdir(
        parents=True
    )
    asked = ["--config.profile.start=3", "--config.profile.steps=4", "--config.log.every=4"]
    done = tiny.run(*command, f"--workdir={tmp_path / 'run'}", *asked)
    assert done.returncode == 0, done.stderr
    (events,) = traced(tmp_path / "run").values()
    assert [update for update, _ in events] == [3, 4, 5, 6]
    assert all(duration > 0 for _, duration in events)
    # The trace lies where the output says.
    (said,) = re.findall(r"updates 3 to 6 are traced; .* xprof --logdir (\S+)", done.stderr)
    assert list(pathlib.Path(said).glob("plugins/profile/updates_3_to_6/*.xplane.pb"))
    assert not partial(tmp_path / "run")


@pytest.mark.slow
def test_run_stopped_while_traced_leaves_what_it_has_and_tells_by_its_status(command, tmp_path):
    workdir = tmp_path / "run"
    long = ["--config.train.steps=100000", "--config.checkpoint.every=100000"]
    arguments = [*command, f"--workdir={workdir}", "--stop-status=75", *long]
    process = subprocess.Popen(
        tiny.command(*arguments, "--config.profile.start=2", "--config.profile.steps=99000"),
        env=tiny.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not ((workdir / "metrics.jsonl").exists() and len(tiny.metrics(workdir)) > 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 75, stderr
    last = tiny.metrics(workdir)[-1]["step"]
    assert f"updates 2 to {last} are traced; " in stderr
    assert updates(workdir) == {f"updates_2_to_{last}": list(range(2, last + 1))}

    # The `profile` config may change. Here tracing begins with the process's first update.
    again = subprocess.Popen(
        tiny.command(*arguments, f"--config.profile.start={last + 1}", "--config.profile.steps=2"),
        env=tiny.environment(),
        stderr=subprocess.DEVNULL,
    )
    while tiny.metrics(workdir)[-1]["step"] < last + 3:
        assert again.poll() is None
        time.sleep(0.01)
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=120) == 75
    assert updates(workdir)[f"updates_{last + 1}_to_{last + 2}"] == [last + 1, last + 2]
    assert len(updates(workdir)) == 2


@pytest.mark.parametrize("status", ["256", "-1", "x"])
def test_statuses_that_do_not_exist_are_refused(command, tmp_path, status):
    done = tiny.run(*command, f"--workdir={tmp_path / 'run'}", f"--stop-status={status}")
    assert done.returncode == 2
    assert f"'{status}' is not an exit status, 0 to 255" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_disk_that_fills_with_a_trace_and_a_run_that_is_past_it(command, small_disk):
    disk = small_disk(4_000)
    workdir = disk / "run"
    arguments = [*command, f"--workdir={workdir}", "--config.checkpoint.every=2"]
    full = tiny.run(*arguments, "--config.profile.start=3", "--config.profile.steps=5")
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    sentence = full.stderr.splitlines()[-1]
    assert sentence.startswith(f"stunet train: the disk that holds {workdir} is full; ")
    assert not partial(workdir)
    assert not list(workdir.rglob("*.xplane.pb"))
    # The checkpoint of update 6 may be incomplete.
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert last >= 4
    late = ["--config.profile.start=2", "--config.profile.steps=3", "--stop-status=75"]
    again = tiny.run(*arguments, *late)
    assert again.returncode == 0, again.stderr
    assert f"from update {last} on" in again.stderr
    assert f"no update is traced: set profile.start above {last}" in again.stderr
    assert [line["step"] for line in tiny.metrics(workdir)] == list(range(1, 9))
