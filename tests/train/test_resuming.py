"""A run goes on from its checkpoint as if it had never been interrupted, with every optimiser."""

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from from_config import abstract_state

from stunet import configs
from stunet.parallel import mesh as meshes
from stunet.train.optim.methods import METHODS
from stunet.train.parts import with_fingerprint
from stunet.train.saved import checkpoint_files, checkpoints

pytestmark = pytest.mark.slow

TRAIN_EACH = pathlib.Path(__file__).with_name("train_each.py")
HALF, STEPS = 3, 6
# Methods whose arrays do not have the shapes and types of their parameters.
SPLIT = ("adamw_8bit", "adafactor")

# Types of numbers in a state, apart from float32 and the int32 of counts.
TYPES = {
    "adamw_8bit": {jnp.dtype("int8"), jnp.dtype("uint8")},
    "adafactor": {jnp.dtype("bfloat16")},
}


def config(method: str, fsdp: int = 1) -> configs.Config:
    """Returns the config of a run that is in its warm-up both before and after the interruption.

    Adafactor factors second moments of at least 128 inputs and outputs, as those of the text are.
    """
    return tiny.config(
        model=tiny.ONE_LEVEL_KEYS | dict(text_features=128),
        text=dict(dim=128),
        mesh=dict(data=1, fsdp=fsdp),
        train=dict(steps=STEPS, optimizer=method, schedule="constant", warmup_steps=STEPS - 1),
        checkpoint=dict(every=HALF),
        log=dict(every=1, validate_every=0, sample_every=0, trackers=()),
    )


def trained(directory: pathlib.Path, methods: Collection[str], devices: int = 1) -> pathlib.Path:
    """Trains a run with each method without a break, and once more with a break in the middle.

    A process trains all runs to the end. A copy of each loses what came after the first half, as if
    it had been killed, and another process continues the copies.

    Returns:
        The directory, with the runs METHOD and METHOD.continued.
    """
    whole = [directory / method for method in methods]
    halves = [run.with_suffix(".continued") for run in whole]
    for run, method in zip(whole, methods, strict=True):
        run.mkdir()
        configs.write(with_fingerprint(config(method, devices)), run / "config.json")
    in_one_process(whole, devices)
    for run, half in zip(whole, halves, strict=True):
        shutil.copytree(run, half)
        shutil.rmtree(half / "checkpoints" / str(STEPS))
    in_one_process(halves, devices)
    return directory


def in_one_process(runs: Collection[pathlib.Path], devices: int) -> None:
    """Trains each run to its end, all in one new process with `devices` virtual devices."""
    command = [sys.executable, TRAIN_EACH, *runs]
    done = subprocess.run(
        command, env=tiny.environment(devices), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr


def state(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Reads everything of a checkpoint by path, onto one device."""
    one_device = meshes.make_mesh(meshes.Layout(data=1), jax.devices()[:1])
    abstract = abstract_state(configs.read(workdir / "config.json"), one_device)
    wanted = checkpoints.items(abstract)
    loaded = checkpoint_files.load(workdir / "checkpoints" / str(step), wanted)
    arrays = jax.tree.leaves_with_path((loaded.items, loaded.data))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in arrays}


def assert_goes_on_as_if_uninterrupted(run: pathlib.Path, method: str) -> None:
    again = run.with_suffix(".continued")
    whole, half, ends = state(run, STEPS), state(run, HALF), state(again, STEPS)
    assert whole.keys() == ends.keys()
    for name, array in whole.items():
        assert array.dtype == ends[name].dtype, name
        # The bytes: -0.0 is not 0.0.
        assert array.tobytes() == ends[name].tobytes(), name
    moments = [name for name in whole if "opt_state" in name]
    types = {whole[name].dtype for name in moments}
    assert types == {np.dtype("int32"), np.dtype("float32")} | TYPES.get(method, set())
    # Both halves change every part of the state, of each type.
    for part in ("params", "ema"):
        assert any((whole[n] != half[n]).any() for n in whole if f"'{part}'" in n)
    for kind in types:
        typed = [name for name in moments if whole[name].dtype == kind]
        assert any(half[name].any() for name in typed)
        assert any((whole[name] != half[name]).any() for name in typed)
    # The continued run did not begin again: it reports the second half of its updates once.
    steps = [line["step"] for line in tiny.metrics(again) if "loss" in line]
    assert steps == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), METHODS)


@pytest.fixture(scope="module")
def split_runs(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("split"), SPLIT, devices=2)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_run_continues_bitwise(runs, method):
    assert_goes_on_as_if_uninterrupted(runs / method, method)


@pytest.mark.parametrize("method", SPLIT)
def test_a_run_whose_weights_are_split_over_devices_continues_bitwise(split_runs, method):
    assert_goes_on_as_if_uninterrupted(split_runs / method, method)
