"""`stunet train` and `stunet sample` as commands: killed, stopped, continued, refused."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp
from tensorboardX.proto.event_pb2 import Event


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> pathlib.Path:
    return tiny.experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory) -> pathlib.Path:
    """Trains 8 updates without interruption, with validation and samples."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    done = tiny.run(
        "train",
        f"--config={experiment}",
        f"--workdir={workdir}",
        "--config.log.validate_every=4",
        "--config.log.validate_clips=8",
        "--config.log.sample_every=8",
    )
    assert done.returncode == 0, done.stderr
    return workdir


def parameters(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Reads every array of a checkpoint, by path."""
    import jax

    items = ocp.load_checkpointables(workdir / "checkpoints" / str(step))
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_bits(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_what_a_run_leaves_behind(finished):
    assert {p.name for p in finished.iterdir() if not p.name.startswith("events.")} == {
        "clock.json",
        "config.json",
        "checkpoints",
        "metrics.jsonl",
        "samples",
        "trackers.jsonl",
    }
    lines = tiny.metrics(finished)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, 9))
    assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in training)
    validation = [line for line in lines if "val/loss" in line]
    assert [line["step"] for line in validation] == [4, 8]
    assert "val/loss_t=0.5" in validation[0]
    assert sorted(p.name for p in (finished / "samples").iterdir()) == [
        "step_00000008.gif",
        "step_00000008_xt.png",
    ]
    # Three checkpoints are kept: after 3, 6 and the last update.
    assert sorted(int(p.name) for p in (finished / "checkpoints").iterdir()) == [3, 6, 8]


def test_tensorboard_has_scalars_and_a_moving_sample(finished):
    (file,) = finished.glob("events.*")
    data, tags, pictures = file.read_bytes(), set(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        for value in event.summary.value:
            tags.add(value.tag)
            pictures += [value.image.encoded_image_string] if value.HasField("image") else []
        data = data[16 + size :]
    assert {"loss", "val/loss", "samples/clips", "samples/xt"} <= tags
    assert any(p.startswith(b"GIF89a") for p in pictures)


def kill_and_continue(workdir: pathlib.Path, *arguments: str) -> None:
    """Kills a run after its first checkpoint, and runs the same command again to the end."""
    command = tiny.command("train", f"--workdir={workdir}", *arguments)
    process = subprocess.Popen(command, env=tiny.environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "3").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(
        command, env=tiny.environment(), capture_output=True, text=True, timeout=240, check=True
    )
    assert "from update 0 on" not in again.stderr


def test_killed_run_continues_bitwise(experiment, finished, tmp_path):
    workdir = tmp_path / "killed"
    kill_and_continue(workdir, f"--config={experiment}")
    assert_same_bits(parameters(workdir, 8), parameters(finished, 8))
    whole = [line for line in tiny.metrics(finished) if "loss" in line]
    for line, same in zip(tiny.metrics(workdir), whole, strict=True):
        assert (line["step"], line["loss"]) == (same["step"], same["loss"])


@pytest.mark.slow
def test_flow_matching_with_drawn_times_continues_bitwise(experiment, tmp_path):
    diffusion = dict(schedule="flow", prediction="flow", input_scale="flow", weighting="sigmoid")
    diffusion |= dict(time_sampling="logit_normal", time_reference=64, time_correction=True)
    options = [f"--config={experiment}", *tiny.ONE_LEVEL]
    options += [f"--config.diffusion.{key}={value}" for key, value in diffusion.items()]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = tiny.run("train", f"--workdir={whole}", *options)
    assert done.returncode == 0, done.stderr
    kill_and_continue(killed, *options)
    assert_same_bits(parameters(killed, 8), parameters(whole, 8))
    # The run makes clips, with guidance in an interval and fresh noise.
    sample = dict(sampler="heun", churn=2.0, guidance_first=0.2, guidance_rescale=0.5)
    config = json.loads((whole / "config.json").read_text())
    config["sample"] |= sample
    (whole / "config.json").write_text(json.dumps(config))
    done = tiny.run("sample", "text", f"--workdir={whole}", "--prompt=a 7")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGTERM],
        [signal.SIGHUP, signal.SIGTERM],
        [signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM],
    ],
)
def test_stop_signals_save_and_exit_cleanly(experiment, tmp_path, numbers):
    workdir = tmp_path / "stopped"
    arguments = ("train", f"--config={experiment}", f"--workdir={workdir}", *tiny.ONE_LEVEL)
    process = subprocess.Popen(
        tiny.command(*arguments, "--config.train.steps=100000", "--config.checkpoint.every=100000"),
        env=tiny.environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=tiny.hears_hangups,
    )
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(0.05)
    # A second run is refused, because it would remove a checkpoint that the first one is writing.
    second = tiny.run(*arguments, "--config.train.steps=100000")
    assert second.returncode == 1
    assert f"a training is running in {workdir}" in second.stderr.splitlines()[-1]
    for number in numbers:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in stderr
    assert "the same command continues from there" in stderr
    (saved,) = (workdir / "checkpoints").iterdir()
    assert int(saved.name) == tiny.metrics(workdir)[-1]["step"]


def test_workdir_of_another_config_is_refused(experiment, finished):
    before = (finished / "config.json").read_text()
    done = tiny.run(
        "train",
        f"--config={experiment}",
        f"--workdir={finished}",
        "--config.train.learning_rate=0.5",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "belongs to another config: train.learning_rate is 0.001 there and 0.5 here" in (
        done.stderr
    )
    assert (finished / "config.json").read_text() == before


def test_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(
    experiment, tmp_path
):
    workdir = tmp_path / "broken"
    done = tiny.run(
        "train",
        f"--config={experiment}",
        f"--workdir={workdir}",
        *tiny.ONE_LEVEL,
        # Moves the weights so far that activations overflow after some updates.
        "--config.train.learning_rate=1e30",
        "--config.train.warmup_steps=100",
        "--config.train.steps=50",
        "--config.checkpoint.every=1",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert "not finite" in message
    good = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert (f"checkpoints/{good[-1]};" in message) if good else ("no checkpoint yet" in message)


def test_damaged_checkpoint_is_named_and_the_one_before_it_continues(
    experiment, finished, tmp_path
):
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    for file in (workdir / "checkpoints" / "8" / "train").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:100])
    done = tiny.run(
        "train", f"--config={experiment}", f"--workdir={workdir}", "--config.train.steps=8"
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if "damaged" in line]
    assert any(str(workdir / "checkpoints" / "8") in line for line in told), done.stderr
    assert (workdir / "checkpoints" / "8").is_dir()


def test_sample_writes_gif_mp4_and_xt(finished, tmp_path):
    arguments = ("sample", "text", "--workdir", finished, "--prompt", "a 3 moving left", "--num", 2)
    done = tiny.run(*arguments, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    names = {
        "a_3_moving_left_seed0.gif",
        "a_3_moving_left_seed0.mp4",
        "a_3_moving_left_seed0_xt.png",
        "a_3_moving_left_seed0.json",
    }
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    settings = json.loads((tmp_path / "a" / "a_3_moving_left_seed0.json").read_text())
    asked = {"task": "text", "workdir": str(finished), "checkpoint": 8, "seed": 0}
    assert settings | asked == settings
    assert settings["prompts"] == ["a 3 moving left"] * 2
    assert settings["sample"]["steps"] == 2
    # The same seed gives the same clips, and another seed gives other clips.
    tiny.run(*arguments, "--out", tmp_path / "b")
    tiny.run(*arguments, "--out", tmp_path / "c", "--seed", 1)
    gif = lambda d, s: (tmp_path / d / f"a_3_moving_left_seed{s}.gif").read_bytes()  # noqa: E731
    assert gif("a", 0) == gif("b", 0)
    assert gif("a", 0) != gif("c", 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--config=nowhere.py", "--workdir=w"], "no file 'nowhere.py'"),
        (["train", "--config={experiment}", "--workdir=w", "--config.model.chanels=3"],
         "unknown key 'model.chanels'; did you mean 'model.channels'?"),
        (["train", "--config={experiment}", "--workdir=w", "--config.data.frames=5"],
         "data.frames is 5; it must be a multiple of 2"),
        (["train", "--config={experiment}", "--workdir=w", "--config.mesh.data=3"],
         "does not fit 1 devices"),
        (["train", "--config={experiment}", "--workdir=w", "--config.data.source=clips",
          "--config.data.path=nowhere"], "nowhere"),
        (["sample", "text", "--workdir=nowhere", "--prompt=x"], "nowhere holds no training run"),
        (["sample", "--workdir=nowhere", "--prompt=x"], "stunet sample text --workdir"),
        (["sample", "txt", "--workdir=nowhere"], "did you mean 'text'? choose one of "),
        (["prepare", "{empty}", "records"], "{empty}"),
    ],
)  # fmt: skip
def test_mistakes_get_one_sentence(experiment, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    names = {"experiment": experiment, "empty": tmp_path / "empty"}
    done = subprocess.run(
        tiny.command(*(a.format(**names) for a in arguments)),
        capture_output=True,
        text=True,
        env=tiny.environment(),
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert sentence.format(**names) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    # Nothing is left behind.
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_workdir_that_may_not_be_written_gets_one_sentence(experiment, tmp_path):
    as_anyone = []
    if os.geteuid() == 0:
        # Root may write anywhere by a capability, which `setpriv` can drop.
        if not shutil.which("setpriv"):
            pytest.skip("root cannot be kept from writing without setpriv")
        as_anyone = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    for workdir in (locked, locked / "new"):
        done = subprocess.run(
            [*as_anyone, *tiny.command("train", f"--config={experiment}", f"--workdir={workdir}")],
            capture_output=True,
            text=True,
            env=tiny.environment(),
            timeout=120,
        )
        assert done.returncode == 1
        assert done.stderr == (
            f"stunet train: cannot write {workdir} (Permission denied at {locked}); choose a"
            " --workdir in which you may create files\n"
        )
    assert not list(locked.iterdir())


def test_config_json_is_the_config_that_ran(finished):
    assert json.loads((finished / "config.json").read_text())["train"]["learning_rate"] == 0.001
