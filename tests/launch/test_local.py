"""launch/local.py, and with it everything about several hosts: real processes, with gloo between
them, interrupted in turn, against one process with as many devices."""

import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp
from PIL import Image, ImageSequence

from stunet import configs
from stunet.parallel import mesh as meshes
from stunet.train.checkpoints import split_ema
from stunet.train.state import abstract_state

LAUNCHER = pathlib.Path(__file__).parents[2] / "launch" / "local.py"

# One level of one frame at a time is enough: what crosses between processes is the same, and
# compiles in a third of the time. Every update's checkpoint is kept, to compare at whichever the
# interruptions fall.
STEPS = 20
SETTINGS = (
    "--config.model.channel_multipliers=(1,)",
    "--config.model.attention_levels=(False,)",
    "--config.model.temporal_factors=(1,)",
    "--config.model.temporal=False",
    f"--config.train.steps={STEPS}",
    "--config.checkpoint.every=1",
    "--config.checkpoint.keep=100",
)


def launch(*command, processes: int = 2, devices: int = 1, errors=subprocess.PIPE):
    sizes = ["--processes", processes, "--devices-per-process", devices]
    arguments = [sys.executable, LAUNCHER, *sizes, "--", *command]
    return subprocess.Popen(
        [str(a) for a in arguments],
        env=tiny.environment(),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


def python(code: str) -> list[str]:
    """A command that runs `code` with `me`, the number of the process."""
    return [sys.executable, "-c", f"import os, signal, sys, time\nme = sys.argv[-1][-1]\n{code}"]


def pids(errors: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"process \d+ is (\d+)", errors)]


def test_output_of_the_first_process_goes_through_and_the_flags_are_passed():
    code = "print(me, sys.argv[-3:], os.environ['XLA_FLAGS'].split()[-1])"
    job = launch(*python(code), processes=3, devices=4)
    out, _ = job.communicate(timeout=30)
    assert job.returncode == 0
    assert re.fullmatch(
        r"0 \['--coordinator=127.0.0.1:\d+', '--processes=3', '--process=0'\] "
        r"--xla_force_host_platform_device_count=4\n",
        out,
    )


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("if me == '1': sys.exit('bad luck')\ntime.sleep(60)", 1,
         "process 1 exited with status 1; stopped the others"),
        ("if me == '0': os.kill(os.getpid(), 9)\ntime.sleep(60)", 137,
         "process 0 was killed by SIGKILL; stopped the others"),
        # Even those that do not listen.
        ("signal.signal(15, signal.SIG_IGN)\nif me == '1': raise OSError\ntime.sleep(60)", 1,
         "process 1 exited with status 1; stopped the others"),
    ],
)  # fmt: skip
def test_a_process_that_fails_ends_the_job_and_is_named(code, status, sentence):
    begun = time.monotonic()
    job = launch(*python(code))
    _, errors = job.communicate(timeout=30)
    assert job.returncode == status
    assert errors.splitlines()[-1] == f"launch/local.py: {sentence}"
    assert ("[process 1] bad luck" in errors) == ("bad luck" in code)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(number):
    code = f"signal.signal({int(number)}, lambda *_: sys.exit(0))\nprint('ready', flush=True)\n"
    job = launch(*python(code + "signal.pause()"), processes=1)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert job.wait(timeout=20) == 0


def test_command_that_does_not_exist():
    job = launch("no_such_command")
    _, errors = job.communicate(timeout=20)
    assert job.returncode == 127
    assert "cannot run 'no_such_command'" in errors


@dataclasses.dataclass
class Ended:
    """How a job ended: its status, what it said, seconds after the signal, and its last update."""

    status: int
    errors: str
    seconds: float
    step: int


def interrupted(arguments, workdir: pathlib.Path, number: int, log: pathlib.Path) -> Ended:
    """Trains with two processes of two devices for three updates more, then sends a signal to the
    second process alone, as a host that is taken away gets it."""
    enough = len(losses(workdir)) + 3
    with log.open("w") as errors:
        job = launch(*tiny.command(*arguments), devices=2, errors=errors)
        try:
            while len(losses(workdir)) < enough:
                assert job.poll() is None, log.read_text()
                time.sleep(0.02)
            os.kill(pids(log.read_text())[1], number)
            begun = time.monotonic()
            job.communicate(timeout=60)
            seconds = time.monotonic() - begun
        finally:
            # The second one kills its processes.
            job.terminate()
            job.terminate()
    return Ended(job.returncode, log.read_text(), seconds, max(losses(workdir)))


def losses(workdir: pathlib.Path) -> dict[int, float]:
    if not (workdir / "metrics.jsonl").exists():
        return {}
    return {line["step"]: line["loss"] for line in tiny.metrics(workdir)}


def parameters(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Those of a checkpoint, by path, on one device whatever saved them."""
    config = configs.read(workdir / "config.json")
    state, _ = split_ema(abstract_state(config, meshes.make_mesh(configs.Mesh(data=1))))
    items = ocp.load_checkpointables(workdir / "checkpoints" / str(step), {"train": state})
    leaves = jax.tree_util.tree_leaves_with_path(items["train"]["params"])
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def frames(gif: pathlib.Path) -> np.ndarray:
    with Image.open(gif) as image:
        return np.stack([np.asarray(f.convert("RGB"), int) for f in ImageSequence.Iterator(image)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training twice: `whole` by one process of four devices, `parts` by two processes of
    two, stopped by SIGTERM, run again, killed, and finished by one process."""
    directory = tmp_path_factory.mktemp("runs")
    experiment, parts, whole = tiny.experiment(directory), directory / "parts", directory / "whole"
    arguments = ["train", f"--config={experiment}", f"--workdir={parts}", *SETTINGS]
    preview = "--config.log.sample_every=2"
    stopped = interrupted([*arguments, preview], parts, signal.SIGTERM, directory / "stopped.txt")
    killed = interrupted(arguments, parts, signal.SIGKILL, directory / "killed.txt")
    alone = tiny.run(*arguments, devices=4)
    assert alone.returncode == 0, alone.stderr
    arguments[2] = f"--workdir={whole}"
    done = tiny.run(*arguments, preview, devices=4)
    assert done.returncode == 0, done.stderr
    return types.SimpleNamespace(
        parts=parts, whole=whole, stopped=stopped, killed=killed, alone=alone
    )


def test_two_processes_train_as_one_does(runs):
    """And so every process has read its share of the same batches."""
    part, whole = losses(runs.parts), losses(runs.whole)
    assert list(part) == list(whole) == list(range(1, STEPS + 1))
    for step in range(1, runs.killed.step + 1):
        np.testing.assert_allclose(part[step], whole[step], rtol=1e-5, err_msg=f"update {step}")
    a, b = (parameters(w, runs.stopped.step) for w in (runs.parts, runs.whole))
    assert a.keys() == b.keys()
    # The gradient of this one is zero but for rounding, which Adam makes steps of: a softmax does
    # not change with a bias of its keys.
    for key in a.keys() - {"['text_pooling']['k_proj']['bias']"}:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_preview_is_that_of_one_process(runs):
    name = "samples/step_00000002.gif"
    # Rounding may fall to either side.
    assert np.abs(frames(runs.parts / name) - frames(runs.whole / name)).max() <= 2


def test_sigterm_of_one_process_saves_and_ends_all_cleanly(runs):
    assert runs.stopped.status == 0, runs.stopped.errors
    assert "Traceback" not in runs.stopped.errors
    sentence = f"stopped after update {runs.stopped.step}; the same command continues from there"
    assert runs.stopped.errors.count(sentence) == 1
    assert f"from update {runs.stopped.step} on" in runs.killed.errors


def test_kill_of_one_process_ends_the_job_and_names_it(runs):
    assert runs.killed.status == 137
    assert runs.killed.seconds < 30
    last = runs.killed.errors.splitlines()[-1]
    assert last == "launch/local.py: process 1 was killed by SIGKILL; stopped the others"


def test_one_process_continues_with_the_same_examples(runs):
    (begun,) = re.findall(r"from update (\d+) on", runs.alone.stderr)
    assert runs.stopped.step < int(begun) <= runs.killed.step
    part, whole = losses(runs.parts), losses(runs.whole)
    for step in range(int(begun) + 1, STEPS + 1):
        np.testing.assert_allclose(part[step], whole[step], rtol=1e-5, err_msg=f"update {step}")


def test_mistake_of_one_process_ends_all_and_is_told_by_all(runs, tmp_path):
    """Only the second is given another config than the first has noted."""
    command = tiny.command("train", f"--config={runs.parts.parent / 'tiny.py'}", *SETTINGS)
    code = (
        f"command = {[*command, f'--workdir={tmp_path}']} + sys.argv[1:]\n"
        "os.execv(command[0], command + ['--config.seed=5'] * (me == '1'))"
    )
    begun = time.monotonic()
    job = launch(*python(code))
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 1
    assert time.monotonic() - begun < 60
    assert errors.splitlines()[-1] == (
        "launch/local.py: process 1 exited with status 1; stopped the others"
    )
    sentence = f"{tmp_path / 'config.json'}, which process 0 has just written, is not this process"
    assert f"stunet train: process 1 failed: {sentence}" in errors
    assert f"[process 1] stunet train: {sentence}" in errors
    assert "Traceback" not in errors
