"""Signals that ask a program to stop are noted, however many come and however close together."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from stunet import signals

# Sends the second signal between every two instructions of the handler of the first one.
NESTED = """
import signal, sys
from stunet import signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # The tests may run under nohup.
stops = signals.note_stops()
first = sys._getframe()

def trace(frame, event, _):
    if frame is first:
        return None
    frame.f_trace_opcodes = True
    if event == "opcode" and len(stops) < 100:
        signal.raise_signal(signal.SIGHUP)
    return trace

sys.settrace(trace)
signal.raise_signal(signal.SIGTERM)
sys.settrace(None)
print(stops.count(signal.SIGTERM), stops.count(signal.SIGHUP) > 1)
"""

# A loop that answers once for each word on its standard input, when a signal has come.
LOOP = """
import signal, sys
from stunet import signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)
stops = signals.note_stops()
for _ in sys.stdin:
    stops.clear()
    print("ready", flush=True)
    while not stops:
        pass
    print("stopped", flush=True)
"""


def test_a_handler_may_be_interrupted_anywhere_by_another_signal():
    done = subprocess.run(
        [sys.executable, "-c", NESTED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["1", "True"], done.stderr


def test_200_double_signals_within_50_microseconds_stop_the_loop_each_time():
    rng, between = random.Random(0), signals.STOP_SIGNALS
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    # A loop that hangs is killed, and its answer is empty.
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        for _ in range(200):
            process.stdin.write("again\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
            first, second = rng.choices(between, k=2)
            gap = rng.uniform(0, 50e-6)
            begun = time.perf_counter()
            os.kill(process.pid, first)
            while time.perf_counter() - begun < gap:
                pass
            os.kill(process.pid, second)
            assert process.stdout.readline() == "stopped\n"
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    finally:
        limit.cancel()
        process.kill()


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with signals.handlers_kept():
        signal.signal(number, signal.SIG_DFL)
        stops = signals.note_stops()
        signal.raise_signal(number)
        assert stops == [number]
    assert signal.getsignal(number) == before


def test_hangup_that_nohup_ignores_stays_ignored():
    with signals.handlers_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        stops = signals.note_stops()
        signal.raise_signal(signal.SIGHUP)
        assert stops == []
