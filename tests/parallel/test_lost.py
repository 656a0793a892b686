"""Two real processes that agree on something again and again, until one is killed or hangs."""

import sys
import time

import pytest
import tiny

pytestmark = pytest.mark.slow

# What process 1 does at its fifth update.
FAULTS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "blocked": "threading.Event().wait()",
}

PROGRAM = """
import os, signal, sys, threading, time
from stunet.parallel import hosts

coordinator, processes, process = (word.partition("=")[2] for word in sys.argv[-3:])
hosts.join(coordinator, int(processes), int(process))

import jax, numpy
from stunet.train.watchdog import Watchdog

mesh = jax.sharding.Mesh(numpy.array(jax.devices()), ("data",))
with hosts.failing_together("stunet train"), Watchdog(8, hosts.tell_failure) as watchdog:
    agreement = hosts.Agreement(mesh, lag=0)
    agreement(False)
    print("ready", flush=True)
    for update in range(1, 10**9):
        watchdog.begin(f"update {update}")
        if update == 5 and process == "1":
            FAULT
        agreement(False)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_process_that_is_lost_ends_the_job_in_time_and_without_a_traceback(fault):
    job = tiny.launch(sys.executable, "-c", PROGRAM.replace("FAULT", FAULTS[fault]))
    assert "ready\n" in iter(job.stdout.readline, "")  # gloo writes there too.
    begun = time.monotonic()
    _, errors = job.communicate(timeout=120)
    assert job.returncode == (137 if fault == "killed" else 75), errors
    # The launcher gives the other process ten seconds to end by itself.
    assert time.monotonic() - begun < 40
    assert "Traceback" not in errors
    assert "Check failure stack trace" not in errors
    if fault == "killed":
        assert "stunet train: another process no longer answers: it was killed, it " in errors
    else:
        assert "no progress for 8 s in update 5" in errors
    assert errors.splitlines()[-1].endswith("; stopped the others")
