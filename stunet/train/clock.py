"""What the wall time of a run went into, over restarts.

Time is either the updates' or something else's: starting, compiling, restoring, validating,
sampling, saving, lying dead. The account is kept where the run is, in its working directory:
`clock.json` says when the run first began, and each line of `metrics.jsonl` how many seconds the
updates up to there took. When a run is continued, lines after its checkpoint are dropped, and with
them the seconds of the updates that are lost and done anew.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

from stunet.files import atomic
from stunet.formatting import duration
from stunet.parallel.peaks import BFLOAT16

_PRODUCTIVE = "productive_seconds"


class Clock:
    """This process's share of a run, which begins now.

    The first update of a process, which compiles, is no measure of any other. It is left out of
    means, unless it is alone in its interval, and counts as productive for what the process's
    other updates take on average, or, before there are any, for nothing.

    Args:
        seconds: a clock that never goes back.
        date: seconds since 1970.
    """

    def __init__(
        self,
        seconds: Callable[[], float] = time.monotonic,
        date: Callable[[], float] = time.time,
    ):
        self._seconds, self._started, self._mark = seconds, seconds(), 0.0
        self._date = self._began = date()
        # What the updates of earlier processes took.
        self._productive = 0.0
        # Seconds, and those that were waited for data: of the first update, of the interval's
        # others, and of all others.
        self._first: tuple[float, float] | None = None
        self._interval, self._waited, self._updates = 0.0, 0.0, 0
        self._sum, self._sum_waited, self._count = 0.0, 0.0, 0

    def note(self, workdir: pathlib.Path) -> None:
        """Notes in the working directory when the run first began, or reads it there."""
        file = workdir / "clock.json"
        try:
            self._began = float(json.loads(file.read_text())["began"])
        except (OSError, ValueError, KeyError, TypeError):
            with atomic(file) as partial:
                partial.write_text(json.dumps({"began": self._began}) + "\n")

    def resume(self, last: Mapping[str, float]) -> None:
        """Goes on from the newest value of each metric that was kept."""
        self._productive = last.get(_PRODUCTIVE, 0.0)

    def begin(self) -> None:
        """From now on, time is the updates'."""
        self._mark = self._seconds()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within: the loop waits for the next batch."""
        begun = self._seconds()
        yield
        self._waited += self._seconds() - begun

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within: time is not the updates'. The devices must have done all that they were given."""
        self._add()
        yield
        self.begin()

    @property
    def is_compiling(self) -> bool:
        """Whether the process's first update is the next to end."""
        return self._first is None

    def updated(self) -> None:
        """An update was given to the devices; the process's first must have been done by them."""
        if self._first is None:
            self._add()
            self._first, self._interval, self._waited = (self._interval, self._waited), 0.0, 0.0
        else:
            self._updates += 1

    def measure(self) -> dict[str, float]:
        """Of the updates since the last call, called `aside`, and of the run up to here:

        * seconds_per_step: mean wall time of an update.
        * data_wait: share of it in which the loop waited for the next batch.
        * goodput: share of the time since the run first began that is in `productive_seconds`.
        * productive_seconds: what the updates up to here took, without those that were lost.
        """
        if self._updates:
            seconds, waited, updates = self._interval, self._waited, self._updates
            self._sum += seconds
            self._sum_waited += waited
            self._count += updates
            self._interval, self._waited, self._updates = 0.0, 0.0, 0
        else:
            (seconds, waited), updates = self._first, 1
        return {
            "seconds_per_step": seconds / updates,
            "data_wait": waited / seconds,
            "goodput": self._goodput(),
            _PRODUCTIVE: self._all_productive(),
        }

    def summary(self) -> str:
        """The run up to here, in a line."""
        line = f"goodput {self._goodput():.1%} of {duration(self._wall())} since the run began"
        if self._count:
            each = self._sum / self._count
            line += f"; {each:.3g} s an update, {self._sum_waited / self._sum:.1%} of it for data"
        return line

    def _add(self) -> None:
        now = self._seconds()
        self._interval, self._mark = self._interval + now - self._mark, now

    def _all_productive(self) -> float:
        first = self._sum / self._count if self._count else 0.0
        return self._productive + self._sum + first

    def _wall(self) -> float:
        since = self._date - self._began + self._seconds() - self._started
        # Another host's date may be behind.
        return max(since, self._all_productive())

    def _goodput(self) -> float:
        return self._all_productive() / self._wall()


def utilisation(operations: float, seconds_per_step: float, device_kind: str) -> dict[str, float]:
    """What the model's operations make of a device: `flops_per_second`, and `mfu`, their share of
    the peak in bfloat16, where it is known.

    Args:
        operations: a device's share of the model's, in a step.
        device_kind: what JAX calls the device.
    """
    rate = operations / seconds_per_step
    peak = BFLOAT16.get(device_kind)
    return {"flops_per_second": rate} | ({"mfu": rate / peak} if peak else {})
