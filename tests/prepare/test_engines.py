"""Engines do all parts, whatever dies on the way, and leave no process behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from working import work, work_that_dies, work_that_ends_late, work_that_fails

from stunet.errors import UserError
from stunet.prepare.engines import processes, serial

PARTS = [(0, 1, 2), (3,), (4, 5), (6, 7, 8, 9)]


def wholes(events):
    return sorted(event[1:] for _, event in events if isinstance(event, tuple))


@pytest.mark.parametrize("engine", [serial, processes(2), processes(5)])
def test_every_part_is_done_once(engine):
    events = list(engine(work, iter(PARTS)))
    assert wholes(events) == [(part, []) for part in PARTS]
    for part in PARTS:
        items = [event for of, event in events if of == part and not isinstance(event, tuple)]
        assert items == [item**2 for item in part]


def test_an_item_that_kills_its_process_twice_is_left_out():
    events = list(processes(2)(work_that_dies, PARTS))
    assert wholes(events) == [((0, 1, 2), []), ((3,), []), ((4, 5), [1]), ((6, 7, 8, 9), [])]


def test_a_process_that_dies_again_and_again_ends_the_command():
    with pytest.raises(UserError, match="fewer --workers"):
        list(processes(1)(work_that_ends_late, [(0,)]))


def test_an_error_ends_the_command_and_its_processes():
    with pytest.raises(UserError, match="item 4 is wrong"):
        list(processes(2)(work_that_fails, PARTS))
    events = processes(1)(work, PARTS)
    next(events)
    began = time.monotonic()
    events.close()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(number):
    code = (
        "from stunet.prepare.engines import processes\n"
        "from working import work_that_waits\n"
        "list(processes(2)(work_that_waits, [(0,), (1,)]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.send_signal(number)
        try:
            # The pipe's end is reached when the last process that could write to it has ended.
            assert process.communicate(timeout=60)[0] == ""
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
