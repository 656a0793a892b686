"""The memory that saving a state takes, and the errors when saving or reading fails."""

import asyncio
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import pytest
from orbax.checkpoint._src.serialization import serialization

from stunet.errors import UserError
from stunet.train.saved.checkpoint_names import steps
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState

SAVE = """
import pathlib, re, sys
import jax
import numpy as np
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState

MIB = 2**20

def held(what):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(what + r":\\s+(\\d+) kB", status)[1]) // 1024

def state(step, mib):
    rng = np.random.default_rng(0)
    draw = lambda: jax.device_put(rng.integers(0, 2**32, 4 * MIB // 4, np.uint32))
    params = {str(i): draw() for i in range(mib // 4)}
    return TrainState(jax.numpy.int32(step), params, {}, {"none": draw()}, {})

at_once = int(sys.argv[2]) * MIB or None
with Checkpoints(pathlib.Path(sys.argv[1]), Retention(1), at_once=at_once) as checkpoints:
    # The first save also loads libraries, so the second one is measured.
    for step, mib in enumerate([8, 200]):
        saved = state(step, mib)
        before = held("VmRSS")
        checkpoints.save(saved, {"global_next_index": 0})
        checkpoints.wait()
print(held("VmHWM") - before)
"""


def beside(tmp_path, at_once: int) -> int:
    """Returns the MiB of extra memory that saving 200 MiB of random numbers takes."""
    arguments = [sys.executable, "-c", SAVE, str(tmp_path / str(at_once)), str(at_once)]
    # If each thread had an arena, the memory in arenas would differ from run to run by 60 MiB.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_arrays_that_are_written_in_turn_are_not_held_twice(tmp_path):
    assert beside(tmp_path, at_once=8) < 100
    # Without the limit, all arrays are packed before any is written.
    assert beside(tmp_path, at_once=0) > 150


@pytest.mark.parametrize("closed", [True, False], ids=["too_late", "of_another_kind"])
def test_a_write_that_fails_after_the_first_is_not_said_again(tmp_path, monkeypatch, closed):
    loop, said = asyncio.new_event_loop(), []
    loop.close()

    class Write:
        def __del__(self):
            # TensorStore does this in a destructor, where nothing can be raised.
            loop.call_soon_threadsafe(print) if closed else 1 / 0

    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with Checkpoints(tmp_path, Retention(1)):
        Write()
    # A write may also fail later.
    Write()
    assert said == ([] if closed else [ZeroDivisionError] * 2)


@pytest.mark.parametrize("abandoned", [True, False], ids=["abandoned", "of_another_kind"])
def test_a_read_that_is_abandoned_after_a_failure_is_not_said(tmp_path, monkeypatch, abandoned):
    said = []

    async def read():
        try:
            await asyncio.Future()
        except BaseException as error:
            # Orbax does this for each array, whatever the error is.
            raise Exception("reading failed") from (error if abandoned else None)

    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with Checkpoints(tmp_path, Retention(1)):
        loop = asyncio.new_event_loop()
        task = loop.create_task(read())
        coroutine = task.get_coro()
        loop.run_until_complete(asyncio.sleep(0))
        # Otherwise asyncio would also log that a pending task was destroyed.
        task._log_destroy_pending = False
        loop.close()
        del task, coroutine
        gc.collect()
    assert said == ([] if abandoned else [Exception])


@pytest.mark.parametrize("nanoseconds", [10**30, -(10**30), "now", float("nan"), [], None])
def test_a_damaged_time_of_saving_is_told_or_harmless(tmp_path, nanoseconds):
    with Checkpoints(tmp_path, Retention(2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(small(step, a=9), {"global_next_index": step})
    file = tmp_path / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    content = json.loads(file.read_text()) | {"commit_timestamp_nsecs": nanoseconds}
    file.write_text(json.dumps(content))
    with Checkpoints(tmp_path, Retention(2)) as checkpoints:
        restored = checkpoints.restore(small(a=9))
        assert int(restored.state.step) == (1 if restored.notes else 2)
        checkpoints.save(small(3, a=9), {"global_next_index": 3})
    assert steps(tmp_path)[0] == 3


def test_a_pipe_for_the_time_of_saving_is_told(tmp_path):
    with Checkpoints(tmp_path, Retention(2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(small(step, a=9), {"global_next_index": step})
    file = tmp_path / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    file.unlink()
    os.mkfifo(file)
    with Checkpoints(tmp_path, Retention(2)) as checkpoints:
        assert int(checkpoints.restore(small(a=9)).state.step) == 1
    assert steps(tmp_path) == [1]


def test_entries_that_are_no_checkpoints_are_left_alone(tmp_path):
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    (directory / "7").write_text("")
    (directory / "8").symlink_to("8")
    (directory / "9").symlink_to("nowhere")
    (directory / "007").mkdir()
    (directory / "\N{ARABIC-INDIC DIGIT THREE}").mkdir()
    with Checkpoints(tmp_path, Retention(1)) as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(small(1, a=9), {"global_next_index": 1})
    assert steps(tmp_path) == [1]


def small(step: int = 0, **params) -> TrainState:
    params = {name: jnp.arange(size, dtype=jnp.float32) for name, size in params.items()}
    return TrainState(jnp.int32(step), params, {}, params, {})


@pytest.mark.parametrize("waits", [True, False], ids=["waited_for", "one_after_the_other"])
def test_saving_often_needs_no_more_threads_and_file_descriptors(tmp_path, waits):
    def held() -> tuple[int, int]:
        """Returns how many threads of event loops run, and how many descriptors are open."""
        loops = [thread for thread in threading.enumerate() if "_run_loop" in thread.name]
        for loop in loops:
            loop.join(0.5)  # It may be about to end.
        running = sum(loop.is_alive() for loop in loops)
        return running, len(list(pathlib.Path("/proc/self/fd").iterdir()))

    with Checkpoints(tmp_path, Retention(1)) as checkpoints:
        for step in range(5):
            checkpoints.save(small(step, a=9), {"global_next_index": 0})
            if waits or step == 0:
                checkpoints.wait()
            if step == 0:
                before = held()
        checkpoints.wait()
        after = held()
    assert after[0] <= before[0]
    assert after[1] < before[1] + 3


def read(workdir, state):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore(state)


@pytest.fixture
def saved(tmp_path):
    """Saves a checkpoint of one array of 9000 numbers, `a`, and returns its files."""
    with Checkpoints(tmp_path, Retention(1)) as checkpoints:
        checkpoints.save(small(a=9000), {"global_next_index": 0})
        checkpoints.wait()
    return tmp_path / "checkpoints" / "0"


def change(pattern, how):
    def damage(saved):
        files = [file for file in saved.glob(pattern) if file.is_file()]
        assert files
        for file in files:
            content = how(file.read_bytes())
            file.unlink() if content is None else file.write_bytes(content)

    return damage


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle:])


@pytest.mark.parametrize(
    "damage",
    [
        change("train/_METADATA", lambda content: content[:50]),
        change("train/_METADATA", lambda content: None),
        change("train/manifest.ocdbt", lambda content: None),
        change("train/manifest.ocdbt", lambda content: content[:50]),
        change("train/d/*", flipped),
        change("train/d/*", lambda content: None),
        change("train/*/d/*", lambda content: content[:50]),
        change("train/*/d/*", flipped),
        lambda saved: shutil.rmtree(saved / "ema"),
    ],
)
def test_a_damaged_checkpoint_is_to_be_removed(saved, damage):
    workdir = saved.parents[1]
    read(workdir, small(a=9000))
    damage(saved)
    with pytest.raises(UserError, match=f"{saved} .*damaged or of another.* remove that directory"):
        read(workdir, small(a=9000))


@pytest.mark.parametrize("other", [small(a=9001), small(b=9000), small(a=9000, b=9000)])
def test_a_checkpoint_of_another_network_is_told_as_one(saved, other):
    with pytest.raises(UserError, match=f"{saved} .*damaged or of another.* remove that directory"):
        read(saved.parents[1], other)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
        MemoryError("no memory"),
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        # These are worded as TensorStore words them.
        ValueError("PERMISSION_DENIED: Error reading a"),
        ValueError("UNAVAILABLE: Error reading a"),
        ValueError("RESOURCE_EXHAUSTED: Error reading a"),
    ],
    ids=str,
)
def test_nobody_is_told_to_remove_a_checkpoint_that_may_be_whole(saved, monkeypatch, error):
    async def fail(**kwargs):
        raise error

    monkeypatch.setattr(serialization, "_read_shard", fail)
    with pytest.raises(UserError, match=f"{saved} .*try again, or with more memory") as told:
        read(saved.parents[1], small(a=9000))
    assert str(error) in str(told.value)
    assert "that directory" not in str(told.value)


def test_a_link_that_cannot_be_followed_is_no_damage(saved):
    # The only failure of a file system that any user, including root, can cause.
    for file in saved.glob("ema/*/d/*"):
        file.unlink()
        file.symlink_to(file)
    with pytest.raises(UserError, match=r"symbolic links.* nothing is known to be wrong with it"):
        read(saved.parents[1], small(a=9000))
