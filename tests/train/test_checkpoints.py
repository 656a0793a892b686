"""What saving a state holds beside it, and what is said of it when it fails."""

import asyncio
import subprocess
import sys

import pytest

from stunet.train.checkpoints import Checkpoints

SAVE = """
import pathlib, re, sys
import jax
import numpy as np
from stunet.train.checkpoints import Checkpoints
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
with Checkpoints(pathlib.Path(sys.argv[1]), keep=1, at_once=at_once) as checkpoints:
    # The first save also loads what saving needs.
    for step, mib in enumerate([8, 200]):
        saved = state(step, mib)
        before = held("VmRSS")
        checkpoints.save(saved, {"global_next_index": 0})
        checkpoints.wait()
print(held("VmHWM") - before)
"""


def beside(tmp_path, at_once: int) -> int:
    """MiB that saving 200 MiB of random numbers takes beside them."""
    arguments = [sys.executable, "-c", SAVE, str(tmp_path / str(at_once)), str(at_once)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_arrays_that_are_written_in_turn_are_not_held_twice(tmp_path):
    assert beside(tmp_path, at_once=8) < 100
    # What the limit is for; without it they are packed before any is written.
    assert beside(tmp_path, at_once=0) > 180


@pytest.mark.parametrize("closed", [True, False], ids=["too_late", "of_another_kind"])
def test_a_write_that_fails_after_the_first_is_not_said_again(tmp_path, monkeypatch, closed):
    loop, said = asyncio.new_event_loop(), []
    loop.close()

    class Write:
        def __del__(self):
            # As TensorStore does it, where nothing can be raised.
            loop.call_soon_threadsafe(print) if closed else 1 / 0

    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with Checkpoints(tmp_path, keep=1):
        Write()
    assert said == ([] if closed else [ZeroDivisionError])
    Write()
    assert len(said) == (1 if closed else 2)
