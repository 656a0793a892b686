"""Steps of sampling are seen while it goes on, and it ends when nobody looks."""

import threading

import numpy as np
import pytest

from stunet.demo.watching import Finished, Step, watch
from stunet.errors import UserError

CLIPS = np.zeros((1, 2, 3, 4, 1), np.float32)


def test_each_step_is_seen_before_the_next_one_is_made():
    looked = threading.Semaphore(0)

    def make(on_step):
        for done in (1, 2, 3):
            on_step(done, 3, CLIPS + done)
            looked.acquire(timeout=60)
        return "clips"

    seen = []
    for event in watch(make):
        seen.append(event)
        looked.release()
    *steps, last = seen
    assert [(step.done, step.total, step.clips.mean()) for step in steps] == [
        (1, 3, 1),
        (2, 3, 2),
        (3, 3, 3),
    ]
    assert all(isinstance(step, Step) for step in steps)
    assert last == Finished("clips")


def test_a_slow_reader_gets_the_newest_step():
    made = threading.Event()

    def make(on_step):
        on_step(1, 9, CLIPS)
        assert made.wait(60)
        for done in range(2, 10):
            on_step(done, 9, CLIPS)

    events = watch(make)
    first = next(events)
    assert first.done == 1
    made.set()
    *steps, last = events
    assert last == Finished(None)
    done = [step.done for step in steps]
    assert done == sorted(set(done))


def test_a_mistake_of_the_user_reaches_the_reader():
    def make(on_step):
        on_step(1, 2, CLIPS)
        raise UserError("too short")

    events = watch(make)
    with pytest.raises(UserError, match="too short"):
        list(events)


def test_sampling_that_nobody_watches_ends_at_its_next_step():
    steps, closing = [], threading.Event()

    def make(on_step):
        for done in range(1, 100):
            steps.append(done)
            on_step(done, 99, CLIPS)
            closing.wait(60)

    events = watch(make)
    next(events)
    threading.Timer(0.1, closing.set).start()
    events.close()  # Waits for the thread.
    assert len(steps) <= 3
