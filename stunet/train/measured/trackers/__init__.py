"""Shows a run in other programs while it trains. `TRACKERS` lists them.

`metrics.jsonl` is the record of a run, and trackers show copies of it. Each works in a thread of
its own, so one that fails or hangs neither ends a run nor slows it down.
"""

import contextlib
import importlib.util
import itertools
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from stunet import extensions
from stunet.errors import UserError
from stunet.train.measured.trackers import history
from stunet.train.measured.trackers.tracker import RunInfo, Tracker

# Calls that wait for a tracker at most. A tracker that hangs must not fill the memory.
_MOST_WAITING = 10_000


def _tensorboard(run: RunInfo) -> Tracker:
    from stunet.train.measured.trackers.tensorboard import TensorBoard

    return TensorBoard(run)


def _wandb(run: RunInfo) -> Tracker:
    from stunet.train.measured.trackers.wandb import WeightsAndBiases

    return WeightsAndBiases(run)


def _mlflow(run: RunInfo) -> Tracker:
    from stunet.train.measured.trackers.mlflow import MLflow

    return MLflow(run)


def _trackio(run: RunInfo) -> Tracker:
    from stunet.train.measured.trackers.trackio import Trackio

    return Trackio(run)


# Name -> function that begins to track a run, or goes on with a run that continues.
TRACKERS: dict[str, Callable[[RunInfo], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}

# Trackers whose files in the working directory say what they were shown. They are given all that
# the run has measured, and leave out what they hold: a bucket may have been sent these files a
# moment before `metrics.jsonl`, or after it, when a run is killed.
_KNOW_WHAT_THEY_HOLD = {"tensorboard"}


def check(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed.

    Raises:
        UserError: one is not, or a user's own tracker cannot be used.
    """
    for name in names:
        extensions.find(TRACKERS, name, extensions.Tracker)
        package = {"tensorboard": "tensorboardX"}.get(name, name)
        if name in TRACKERS and importlib.util.find_spec(package) is None:
            raise UserError(
                f"log.trackers has {name!r}, whose package is not installed; install it with "
                "pip install 'stunet[trackers]', or leave it out"
            )


class Trackers:
    """Hands everything to several trackers, each in a thread of its own.

    A tracker that is new in a run that continues is first shown all that the run has on disk, and
    so is one in `_KNOW_WHAT_THEY_HOLD`.

    Args:
        names: names in `TRACKERS`, or of users' own objects.
        run: the run.
        tell: prints a sentence. A tracker's first failure is told.
        step: number of updates done.
    """

    def __init__(
        self, names: Sequence[str], run: RunInfo, tell: Callable[[str], None], step: int = 0
    ):
        makers = {name: extensions.find(TRACKERS, name, extensions.Tracker) for name in names}
        new = history.find_new(run.workdir, list(makers), step)
        new |= _KNOW_WHAT_THEY_HOLD & makers.keys()
        # Read before the run goes on, and adds lines.
        earlier = history.calls(run.workdir, step) if new and step else []
        self._workers = [
            _Worker(name, make, run, tell, earlier if name in new else None)
            for name, make in makers.items()
        ]
        self._tell = tell

    def scalars(self, step: int, values: Mapping[str, float], again: Collection[str] = ()) -> None:
        """Shows metrics after update `step`.

        Those named in `again` were shown before the run was killed. Only new trackers get them.
        """
        fresh = {name: value for name, value in values.items() if name not in again}
        for worker in self._workers:
            if shown := dict(values) if worker.is_new else fresh:
                worker.call("scalars", step, shown)

    def picture(self, step: int, name: str, path: str, again: bool = False) -> None:
        """Shows a PNG or GIF file after update `step`. The file must stay.

        If `again`, a picture was shown there before the run was killed. Only new trackers get it.
        """
        for worker in self._workers:
            if worker.is_new or not again:
                worker.call("picture", step, name, path)

    def close(self, seconds: float = 60.0) -> None:
        """Waits until everything is shown, but not longer than `seconds` in all."""
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                self._tell(f"the tracker {worker.name} did not end in {seconds:g} s; it is left")


class _Worker(threading.Thread):
    """Calls one tracker.

    Args:
        name: name of the tracker.
        make: makes the tracker.
        run: the run.
        tell: prints a sentence.
        earlier: calls that show a new tracker what the run did before; None for one that is not
            new.

    Attributes:
        is_new: True for a tracker that has shown nothing of the run before, or leaves out what it
            has shown.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[RunInfo], Tracker],
        run: RunInfo,
        tell: Callable[[str], None],
        earlier: Sequence[history.Call] | None,
    ):
        # A thread that hangs must not keep the process.
        super().__init__(name=name, daemon=True)
        self.is_new, self._earlier = earlier is not None, earlier or ()
        self._make, self._run, self._tell = make, run, tell
        self._calls: queue.Queue[tuple[str, tuple] | None] = queue.Queue(_MOST_WAITING)
        self._has_failed = False
        self.start()

    def call(self, method: str, *arguments: Any) -> None:
        """Leaves a call for the thread."""
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._failed(f"{_MOST_WAITING} calls wait")

    def end(self) -> None:
        """Lets the thread end once it has made the calls that wait."""
        # A thread whose queue is full hangs, and is left.
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)

    def run(self) -> None:
        """Makes the calls, until `end`. A client that calls `sys.exit` has failed, too."""
        try:
            tracker = self._make(self._run)
            if self.is_new:
                # Before it shows anything: a run that is killed here must not show it twice.
                history.note(self._run.workdir, self.name)
        except BaseException as error:
            self._failed(error)
            return
        for method, arguments in itertools.chain(self._earlier, iter(self._calls.get, None)):
            try:
                getattr(tracker, method)(*arguments)
            except BaseException as error:
                self._failed(error)
        try:
            tracker.close()
        except BaseException as error:
            self._failed(error)

    def _failed(self, why: BaseException | str) -> None:
        if not self._has_failed:
            self._has_failed = True
            kind = "" if isinstance(why, str) else f"{type(why).__name__}: "
            self._tell(
                f"the tracker {self.name} failed ({kind}{why}); the run goes on, and metrics.jsonl "
                "holds what it does not show"
            )
