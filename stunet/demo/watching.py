"""Runs sampling in a thread, so that its steps can be shown while it goes on."""

import concurrent.futures
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from stunet.progress import OnStep

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of sampling.

    Attributes:
        done: number of steps done.
        total: number of all steps.
        clips: the clips as this step estimates them, in about -1..1. `np.asarray` returns them as
            an array `[b, t, h, w, c]`, for which latents are decoded.
    """

    done: int
    total: int
    clips: Any


@dataclasses.dataclass(frozen=True)
class Finished(Generic[Made]):
    """Holds what sampling returned at its end.

    Attributes:
        made: the value that the function `make` of `watch` returned.
    """

    made: Made


class _Stopped(Exception):
    """Ends sampling that nobody waits for."""


def _newest(steps: "queue.SimpleQueue[Step | None]") -> Step | None:
    """Waits for a step, and returns the newest one; None if sampling has ended."""
    step = steps.get()
    while step and not steps.empty():
        step = steps.get()
    return step


def watch(make: Callable[[OnStep], Made]) -> Iterator[Step | Finished[Made]]:
    """Yields the steps of sampling, and what it has made at the end.

    A reader that is slower than sampling gets the newest step, and misses those before it. When the
    iterator is closed, sampling ends with its next step.

    Args:
        make: samples, and calls its argument after each step.

    Raises:
        Exception: whatever `make` raises.
    """
    steps: queue.SimpleQueue[Step | None] = queue.SimpleQueue()
    closed = threading.Event()

    def on_step(done: int, total: int, clips: object) -> None:
        if closed.is_set():
            raise _Stopped
        steps.put(Step(done, total, clips))

    with concurrent.futures.ThreadPoolExecutor(1, "sampling") as pool:
        work = pool.submit(make, on_step)
        work.add_done_callback(lambda _: steps.put(None))
        try:
            while newest := _newest(steps):
                yield newest
        finally:
            closed.set()
    yield Finished(work.result())
