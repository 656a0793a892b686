"""Real trackers, offline: a run that is killed and goes on has each point once in each.

The run has three trackers, and a fourth one is added when it goes on.
"""

import collections
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time

import event_files
import pytest
import tiny

pytest.importorskip("mlflow")
pytest.importorskip("trackio")
internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
pytest.importorskip("tensorboardX")

EVERY = 40


def wandb_points(workdir: pathlib.Path) -> list[tuple[int, str, object]]:
    """The points of all files of a run: LevelDB's log format, with records of protobuf."""
    points = []
    for file in workdir.glob("wandb/offline-run-*/*.wandb"):
        data, place, parts = file.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            parts += data[place + 7 : place + 7 + size]
            place += 7 + size
            if kind in (1, 4):
                record, parts = internal.Record.FromString(parts), b""
                if record.HasField("history"):
                    step = record.history.step.num
                    for item in record.history.item:
                        name = item.key or "/".join(item.nested_key)
                        points.append((step, name, json.loads(item.value_json)))
    return [point for point in points if not point[1].startswith("_")]


def trackio_points(folder: pathlib.Path) -> list[tuple[int, str, object]]:
    with sqlite3.connect(folder / "stunet.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics").fetchall()
    return [(step, *item) for step, text in rows for item in json.loads(text).items()]


def mlflow_points(folder: pathlib.Path) -> list[tuple[int, str, object]]:
    (metrics,) = folder.glob("*/*/metrics")
    return [
        (int(line.split()[2]), str(file.relative_to(metrics)), float(line.split()[1]))
        for file in metrics.rglob("*")
        if file.is_file()
        for line in file.read_text().splitlines()
    ]


@pytest.mark.slow
def test_a_killed_run_has_each_point_once(tmp_path):
    environment = tiny.environment() | {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"file://{tmp_path}/mlflow",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": f"{tmp_path}/trackio",
        "HF_HUB_OFFLINE": "1",
    }
    workdir = tmp_path / "run"
    command = tiny.command(
        "train",
        f"--config={tiny.experiment(tmp_path)}",
        f"--workdir={workdir}",
        *tiny.ONE_LEVEL,
        "--config.log.trackers=wandb,mlflow,trackio",
        "--config.train.steps=400",
        f"--config.checkpoint.every={EVERY}",
        f"--config.log.validate_every={EVERY}",
        f"--config.log.sample_every={EVERY}",
        "--config.log.validate_clips=4",
    )
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / str(2 * EVERY)).exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    killed_at = tiny.metrics(workdir)[-1]["step"]
    added = "--config.log.trackers=wandb,mlflow,trackio,tensorboard"
    again = subprocess.run(
        [*command, added], env=environment, capture_output=True, text=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert "the tracker" not in again.stderr
    continued_at = int(again.stderr.partition("from update ")[2].split()[0])
    assert 2 * EVERY <= continued_at <= killed_at

    lines = tiny.metrics(workdir)
    want = {(line["step"], name): line[name] for line in lines for name in line if name != "step"}
    on_disk = {(step, name.replace("_t=", "_t_")) for step, name in want}
    for points in (
        wandb_points(workdir),
        trackio_points(tmp_path / "trackio"),
        mlflow_points(tmp_path / "mlflow"),
    ):
        shown = [(step, name.replace("_t=", "_t_")) for step, name, _ in points]
        assert max(collections.Counter(shown).values()) == 1
        assert {name for _, name in shown} >= {"loss", "val/loss", "system/busy_cores"}
        # At the kill, the last points were still on their way.
        missing = on_disk - set(shown)
        assert all(killed_at - EVERY < step <= killed_at for step, _ in missing)
        for step, name, value in points:
            if name == "loss" and step > killed_at:
                assert value == pytest.approx(want[step, name], rel=1e-6)
    # The new tracker has everything that is on disk, and what it was given since then.
    new = event_files.points(workdir)
    shown = [(step, name) for step, name, _ in new]
    assert max(collections.Counter(shown).values()) == 1
    assert {point for point in shown if not point[1].startswith("system/")} == on_disk
    assert min(step for step, name in shown if name.startswith("system/")) > continued_at
    videos = {p.name for p in (tmp_path / "trackio" / "media").rglob("*.gif")}
    assert len(videos) >= 400 // EVERY - 1
    assert len(list((tmp_path / "mlflow").rglob("step_*.gif"))) >= 400 // EVERY - 1
    assert len(list(workdir.glob("wandb/*/files/media/videos/samples/*.gif"))) >= 400 // EVERY - 1
