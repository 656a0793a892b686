"""A run that hangs is ended, with the stacks of its threads; a run that is slow is not.

The runs are small programs in processes of their own. tests/train/test_hung.py hangs real runs.
"""

import signal
import subprocess
import sys
import time

import pytest

from stunet.train.watchdog import HUNG_STATUS

# What the programs begin with. `stuck` never returns to Python, so that no handler in Python runs.
PROGRAM = """
import ctypes, os, sys, threading, time
from stunet import signals
from stunet.train import watchdog

def stuck():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

with signals.handlers_kept(), watchdog.Watchdog({seconds}) as dog:
    stops = signals.note_stops()
    print("ready", flush=True)
"""


def start(seconds: float, code: str, **options) -> subprocess.Popen:
    """Starts a program that is watched with this limit, and waits until it is."""
    lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds) + lines],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("hang", ["time.sleep(60)", "threading.Event().wait(60)", "stuck()"])
def test_a_task_that_never_ends_is_ended_and_shown(hang):
    process = start(0.6, f'dog.begin("update 7")\n{hang}')
    begun = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == HUNG_STATUS
    assert time.monotonic() - begun >= 0.5
    assert "(most recent call first)" in errors
    assert 'File "<string>", line' in errors
    assert errors.splitlines()[-1].startswith("stunet train: no progress for 0.6 s in update 7; ")


@pytest.mark.parametrize(
    ("hang", "number"),
    [
        ("time.sleep(60)", signal.SIGTERM),
        ("stuck()", signal.SIGINT),
        ("threading.Event().wait(60)", signal.SIGHUP),
    ],
)
def test_a_stop_signal_without_an_answer_ends_the_process_in_a_tenth_of_the_time(hang, number):
    hears = "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nstops = signals.note_stops()\n"
    code = f'dog.begin("update 7")\nprint("hangs", flush=True)\n{hang}'
    process = start(8, f"import signal\n{hears}{code}")
    assert process.stdout.readline() == "hangs\n"
    time.sleep(0.2)
    begun = time.monotonic()
    process.send_signal(number)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == HUNG_STATUS
    assert 0.6 < time.monotonic() - begun < 15
    assert "stunet train: the signal to stop had no answer for 0.8 s in update 7; " in errors


@pytest.mark.parametrize(
    "work",
    [
        # Each update is short enough, and more than all of them are slow.
        'for i in range(8):\n    dog.begin(f"update {i}")\n    time.sleep(0.2)',
        'dog.begin("a checkpoint", is_slow=True)\ntime.sleep(2)',
        # One update may take many times as long as the longest before.
        'dog.begin("update 1")\ntime.sleep(0.4)\ndog.begin("update 2")\ntime.sleep(2)',
    ],
)
def test_slow_work_is_not_ended(work):
    process = start(0.7, f'{work}\nprint("done")')
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (0, "done\n", "")


def test_time_in_which_the_process_is_stopped_does_not_count():
    process = start(1, 'dog.begin("update 1")\ntime.sleep(0.6)\nprint("done")')
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "done\n")


def test_a_hung_reader_of_the_messages_holds_up_nothing():
    """The main thread hangs because nobody reads standard error, which the watchdog needs too."""
    code = "watchdog._MESSAGE_SECONDS = 1\n" + 'dog.begin("update 1")\nos.write(2, b"x" * 10**6)'
    process = start(0.6, code)
    assert process.wait(timeout=30) == HUNG_STATUS


def test_without_seconds_nothing_is_watched():
    process = start(0, 'dog.begin("update 1")\ntime.sleep(1)\nprint(threading.active_count())')
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "1\n")


def test_the_other_processes_are_told():
    code = 'dog._tell = lambda why: print("told:", why, flush=True)\ndog.begin("update 1")\nstuck()'
    process = start(1, code)
    out, _ = process.communicate(timeout=30)
    assert out.startswith("told: no progress for 1 s in update 1; ")
