"""Training gives the same result on several processes, other meshes and fewer devices.

Real processes, connected by gloo, are interrupted and continued on other devices. Their results are
compared with those of one process with as many devices that is never interrupted.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
import tiny
from from_config import abstract_state
from orbax.checkpoint import v1 as ocp
from PIL import Image, ImageSequence

from stunet import configs
from stunet.data.turns import Turns
from stunet.parallel import mesh as meshes
from stunet.train.saved import checkpoints

pytestmark = pytest.mark.slow

NOTING_EXAMPLES = pathlib.Path(__file__).with_name("noting_examples.py")

# Clips come from three sources in two buckets, since what holds for those holds for one. Batches of
# pictures hold twice as many clips, and are a third of all batches. One level is enough: it
# exchanges the same data between processes, and `tests/parallel` tests the update of more levels on
# every mesh. The checkpoint of every update is kept, because the tests compare runs at the updates
# where interruptions happen to fall.
STEPS, BATCH = 20, 8
SETTINGS = (
    *tiny.ONE_LEVEL,
    "--config.data.mix.motions.source=motions",
    "--config.data.mix.motions.weight=0.5",
    "--config.data.mix.pictures.frames=1",
    "--config.data.mix.pictures.width=16",
    "--config.data.mix.pictures.weight=0.75",
    f"--config.train.steps={STEPS}",
    f"--config.train.batch_size={BATCH}",
    "--config.checkpoint.every=1",
    "--config.checkpoint.keep=100",
)
PREVIEW = "--config.log.sample_every=2"

# `fsdp` is the number of devices.
FSDP = ("--config.mesh.data=1", "--config.mesh.fsdp=-1")
DATA_2_CLIP_2 = ("--config.mesh.data=2", "--config.mesh.context=2")
HALF = STEPS // 2


def noting(workdir: pathlib.Path, name: str, *arguments: str) -> list:
    """Returns the command that trains in `workdir` and notes its examples in `name` beside it."""
    experiment = workdir.parent / "tiny.py"
    where = ["train", f"--config={experiment}", f"--workdir={workdir}"]
    return [sys.executable, NOTING_EXAMPLES, workdir.parent / name, *where, *SETTINGS, *arguments]


@dataclasses.dataclass
class Ended:
    """The end of a job: status, standard error, seconds since the signal, and last update."""

    status: int
    errors: str
    seconds: float
    step: int


def interrupted(command: list, workdir: pathlib.Path, number: int, restarts: int = 0) -> Ended:
    """Trains three more updates with two processes of two devices, then interrupts one of them.

    Only the second process gets the signal, as when its host is taken away.
    """
    enough, log = len(losses(workdir)) + 3, workdir.parent / f"{workdir.name}_{number}.txt"
    with log.open("w") as errors:
        job = tiny.launch(*command, devices=2, restarts=restarts, errors=errors)
        try:
            while len(losses(workdir)) < enough:
                assert job.poll() is None, log.read_text()
                time.sleep(0.02)
            os.kill(tiny.pids(log.read_text())[1], number)
            begun = time.monotonic()
            job.communicate(timeout=60 if not restarts else 300)
            seconds = time.monotonic() - begun
        finally:
            # The second SIGTERM makes the launcher kill its processes.
            job.terminate()
            job.terminate()
    return Ended(job.returncode, log.read_text(), seconds, max(losses(workdir)))


def finished(command: list, devices: int) -> str:
    """Trains to the end in one process with `devices` devices, and returns its standard error."""
    done = subprocess.run(
        command, capture_output=True, text=True, env=tiny.environment(devices), timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def begun(errors: str) -> int:
    """Returns the update that a run continued from."""
    (step,) = set(re.findall(r"from update (\d+) on", errors))  # Each process says the same.
    return int(step)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    if not (workdir / "metrics.jsonl").exists():
        return {}
    return {line["step"]: line["loss"] for line in tiny.metrics(workdir)}


def assert_same_losses(part, whole, updates: range) -> None:
    assert len(updates) > 2
    part, whole = losses(part), losses(whole)
    for step in updates:
        np.testing.assert_allclose(part[step], whole[step], rtol=1e-5, err_msg=f"update {step}")


def is_of_pictures(step: int) -> bool:
    """Tells whether update `step` is on pictures: one of each three."""
    return Turns([1.5, 0.75]).at(step - 1)[0] == 1


def examples(notes: pathlib.Path, first: int) -> dict[int, list[str]]:
    """Returns the digests of the examples in each global batch, row by row, by update.

    The run starts at update `first`. Only updates that every process has begun are included.
    """
    batches = {}
    lines = [file.read_text().splitlines() for file in notes.iterdir()]
    for step, shares in enumerate(zip(*lines, strict=False), first + 1):
        rows = [(int(row), digest) for share in shares for row, digest in json.loads(share).items()]
        size = 2 * BATCH if is_of_pictures(step) else BATCH
        assert sorted(row for row, _ in rows) == list(range(size))
        batches[step] = [digest for _, digest in sorted(rows)]
    return batches


def parameters(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Reads the parameters of a checkpoint, by path, onto one device."""
    config = configs.read(workdir / "config.json")
    state = abstract_state(config, meshes.make_mesh(meshes.Layout(data=1)))
    asked = {"train": checkpoints.items(state)["train"]}
    loaded = ocp.load_checkpointables(workdir / "checkpoints" / str(step), asked)
    leaves = jax.tree_util.tree_leaves_with_path(loaded["train"]["params"])
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def frames(gif: pathlib.Path) -> np.ndarray:
    with Image.open(gif) as image:
        return np.stack([np.asarray(f.convert("RGB"), int) for f in ImageSequence.Iterator(image)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs the same training three times.

    `whole`: by one process with four devices, over which the weights are split.
    `parts`: by two processes with two devices each, which are stopped by SIGTERM, run again and
    killed; then by one process with two devices.
    `other`: as `whole`, but on another mesh from the middle on.
    """
    directory = tmp_path_factory.mktemp("runs")
    tiny.experiment(directory)
    parts, whole, other = (directory / name for name in ("parts", "whole", "other"))
    again = "--stop-status=75"
    stopped = interrupted(noting(parts, "stopped", *FSDP, PREVIEW, again), parts, signal.SIGTERM)
    killed = interrupted(noting(parts, "killed", *FSDP), parts, signal.SIGKILL)
    alone = finished(noting(parts, "alone", *FSDP), devices=2)
    undisturbed = finished(noting(whole, "undisturbed", *FSDP, PREVIEW), devices=4)
    # Make the state of a run that was killed in the middle.
    shutil.copytree(whole, other)
    for step in range(HALF + 1, STEPS + 1):
        shutil.rmtree(other / "checkpoints" / str(step))
    remeshed = finished(noting(other, "remeshed", *DATA_2_CLIP_2), devices=4)
    said = dict(
        undisturbed=undisturbed,
        stopped=stopped.errors,
        killed=killed.errors,
        alone=alone,
        remeshed=remeshed,
    )
    return types.SimpleNamespace(
        parts=parts,
        whole=whole,
        other=other,
        stopped=stopped,
        killed=killed,
        said=said,
        begun={name: begun(errors) for name, errors in said.items()},
        examples={name: examples(directory / name, begun(said[name])) for name in said},
    )


def test_examples_can_be_told_apart(runs):
    """If examples were equal, the other tests could not see a skipped or exchanged row."""
    batches = runs.examples["undisturbed"]
    assert list(batches) == list(range(1, STEPS + 1))
    digests = [digest for batch in batches.values() for digest in batch]
    assert len(digests) > STEPS * BATCH
    # Two pictures may be of the same handwriting at the same place.
    assert len(set(digests)) > 0.98 * len(digests)


@pytest.mark.parametrize("run", ["stopped", "killed", "alone", "remeshed"])
def test_same_examples_in_the_same_order(runs, run):
    seen, whole = runs.examples[run], runs.examples["undisturbed"]
    assert len(seen) > 2
    assert min(seen) == runs.begun[run] + 1
    for step, batch in seen.items():
        assert batch == whole[step], f"update {step}"


def test_two_processes_train_as_one_does(runs):
    assert list(losses(runs.parts)) == list(losses(runs.whole)) == list(range(1, STEPS + 1))
    assert_same_losses(runs.parts, runs.whole, range(1, runs.begun["alone"] + 1))
    a, b = (parameters(w, runs.stopped.step) for w in (runs.parts, runs.whole))
    assert a.keys() == b.keys()
    # The gradient of this bias is zero except for rounding, which Adam turns into steps: a bias of
    # all keys does not change a softmax.
    for key in a.keys() - {"['text_pooling']['k_proj']['bias']"}:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_two_devices_continue_what_four_have_saved(runs):
    assert "on 2 cpu device(s)" in runs.said["alone"]
    assert runs.stopped.step < runs.begun["alone"] <= runs.killed.step
    assert_same_losses(runs.parts, runs.whole, range(runs.begun["alone"] + 1, STEPS + 1))


def test_clips_split_continue_what_weights_split_have_saved(runs):
    assert runs.begun["remeshed"] == HALF
    assert list(losses(runs.other)) == list(range(1, STEPS + 1))
    assert_same_losses(runs.other, runs.whole, range(HALF + 1, STEPS + 1))


def test_preview_is_that_of_one_process(runs):
    name = "samples/step_00000002.gif"
    # Pixels may be rounded up in one run and down in the other.
    assert np.abs(frames(runs.parts / name) - frames(runs.whole / name)).max() <= 2


def test_sigterm_of_one_process_saves_and_ends_all_cleanly(runs):
    assert runs.stopped.status == 75, runs.stopped.errors
    assert "Traceback" not in runs.stopped.errors
    sentence = f"stopped after update {runs.stopped.step}; the same command continues from there"
    # The launcher takes the exit status for a failure, and shows the other process's output too.
    first = [line for line in runs.stopped.errors.splitlines() if line[:8] != "[process"]
    assert "\n".join(first).count(sentence) == 1
    assert runs.begun["killed"] == runs.stopped.step


def test_kill_of_one_process_ends_the_job_and_names_it(runs):
    assert runs.killed.status == 137
    assert runs.killed.seconds < 30
    last = runs.killed.errors.splitlines()[-1]
    assert last == "launch/local.py: process 1 was killed by SIGKILL; stopped the others"


# tests/train/test_hung.py has a job that begins again.
@pytest.mark.long
def test_a_job_that_begins_again_after_a_kill_ends_as_if_nothing_had_been(runs):
    again = runs.whole.with_name("again")
    ended = interrupted(noting(again, "began_again", *FSDP), again, signal.SIGKILL, restarts=1)
    assert (ended.status, ended.step) == (0, STEPS), ended.errors
    assert "process 1 was killed by SIGKILL" in ended.errors
    # Every process whose output is shown says it.
    first, second = sorted(set(map(int, re.findall(r"from update (\d+) on", ended.errors))))
    # The checkpoint of the last update before the kill may be incomplete.
    assert first == 0 < second < STEPS
    assert_same_losses(again, runs.whole, range(1, STEPS + 1))
    a, b = (parameters(w, STEPS) for w in (again, runs.whole))
    for key in a.keys() - {"['text_pooling']['k_proj']['bias']"}:
        np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-5, err_msg=key)
