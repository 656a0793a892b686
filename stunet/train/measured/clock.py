"""Measures what a run spends its wall time on, over restarts.

Time is spent either on updates or on something else: starting, compiling, restoring, validating,
evaluating, sampling, saving, standing still. The times are noted in the run's working directory.
`clock.json` says when the run first began. Each line of `metrics.jsonl` has a step, and says how
many seconds all updates up to that step took. When a run continues from a checkpoint, lines of
later updates are dropped. The time of updates that are lost and done again is therefore not
counted.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, TypedDict

import msgspec

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.files import atomic
from stunet.formatting import duration
from stunet.parallel.peaks import BFLOAT16

_PRODUCTIVE, _EVALUATION = "productive_seconds", "evaluation_seconds"


FILE = "clock.json"


class _Account(TypedDict):
    """Holds the content of `clock.json`: when the run first began, in seconds since 1970."""

    began: Annotated[float, msgspec.Meta(ge=0, lt=2**40)]


def read_began(workdir: pathlib.Path) -> float | None:
    """Reads when a run first began, in seconds since 1970. Returns None without `clock.json`.

    Raises:
        UserError: `clock.json` is damaged.
    """
    file = workdir / FILE
    return jsonfiles.read(file, _Account)["began"] if file.exists() else None


class Clock:
    """Measures the time that this process spends on a run, from the clock's creation on.

    The first update of a process compiles, so it takes much longer than the others. The means leave
    this update out, unless it is the only update since the last call of `measure`. In the
    productive time, the first update counts as much as the mean of the process's other updates. It
    counts as zero while there are no other updates.

    Args:
        seconds: returns the seconds of a clock that never goes back.
        date: returns the seconds since 1970.
    """

    def __init__(
        self,
        seconds: Callable[[], float] = time.monotonic,
        date: Callable[[], float] = time.time,
    ):
        self._seconds, self._started, self._mark = seconds, seconds(), 0.0
        self._date = self._began = date()
        # Seconds that the updates of earlier processes took, and that all evaluations took.
        self._productive, self._evaluated = 0.0, 0.0
        # Seconds, and seconds of waiting for data: of the first update, of the other updates in
        # the interval, and of all other updates.
        self._first: tuple[float, float] | None = None
        self._interval, self._waited, self._updates = 0.0, 0.0, 0
        self._sum, self._sum_waited, self._count = 0.0, 0.0, 0

    def note(self, workdir: pathlib.Path) -> str:
        """Reads the time at which the run first began from `clock.json`.

        At the first start there is no such file, and the present time is written there.

        Returns:
            A sentence about a damaged `clock.json`, which is replaced; "" if nothing is wrong.
        """
        damage = ""
        try:
            began = read_began(workdir)
            if began is not None:
                self._began = began
                return damage
        except UserError as error:
            damage = f"{error}; goodput counts from now on"
        with atomic(workdir / FILE) as partial:
            partial.write_text(json.dumps({"began": self._began}) + "\n")
        return damage

    def resume(self, last: Mapping[str, float]) -> None:
        """Continues from the seconds that earlier processes of the run logged.

        Args:
            last: last logged value of each metric, by its name in `metrics.jsonl`.
        """
        self._productive = last.get(_PRODUCTIVE, 0.0)
        self._evaluated = last.get(_EVALUATION, 0.0)

    def begin(self) -> None:
        """Counts time as spent on updates, from now on."""
        self._mark = self._seconds()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Context manager for the time in which the loop waits for the next batch."""
        begun = self._seconds()
        yield
        self._waited += self._seconds() - begun

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Context manager for time that is not spent on updates.

        Before entering, wait until the devices have finished all updates.
        """
        self._add()
        yield
        self.begin()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context manager for an evaluation. Use it within `aside`, or before `begin`."""
        begun = self._seconds()
        yield
        self._evaluated += self._seconds() - begun

    @property
    def is_compiling(self) -> bool:
        """Returns True until the first update of this process, which compiles, has ended."""
        return self._first is None

    def updated(self) -> None:
        """Counts an update that the host has sent to the devices.

        After the first update of the process, wait until the devices have finished this update
        before you call this method.
        """
        if self._first is None:
            self._add()
            self._first, self._interval, self._waited = (self._interval, self._waited), 0.0, 0.0
        else:
            self._updates += 1

    def measure(self) -> dict[str, float]:
        """Measures the updates since the last call. Call this within `aside`.

        Returns:
            seconds_per_step: mean wall time of an update, in seconds.
            data_wait: share of the updates' time in which the loop waited for the next batch, 0..1.
            goodput: `productive_seconds` as a share of the time since the run first began, 0..1.
            productive_seconds: seconds that all updates of the run took, over restarts. Updates
                that were lost at a restart are not counted.
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

    def measure_evaluations(self) -> dict[str, float]:
        """Measures evaluations.

        Returns:
            evaluation_seconds: seconds that all evaluations of the run took, over restarts.
        """
        return {_EVALUATION: self._evaluated}

    def summary(self) -> str:
        """Returns a line of text about how the run has spent its time so far."""
        line = f"goodput {self._goodput():.1%} of {duration(self._wall())} since the run began"
        if self._count:
            each = self._sum / self._count
            line += f"; {each:.3g} s an update, {self._sum_waited / self._sum:.1%} of it for data"
        if self._evaluated:
            line += f"; {duration(self._evaluated)} of evaluations"
        return line

    def _add(self) -> None:
        now = self._seconds()
        self._interval, self._mark = self._interval + now - self._mark, now

    def _all_productive(self) -> float:
        first = self._sum / self._count if self._count else 0.0
        return self._productive + self._sum + first

    def _wall(self) -> float:
        since = self._date - self._began + self._seconds() - self._started
        # The date may have been set back, and that of another host may be behind.
        return max(since, self._seconds() - self._started, self._all_productive())

    def _goodput(self) -> float:
        # By a coarse clock, no time at all may have passed.
        return self._all_productive() / (self._wall() or 1.0)


def utilisation(operations: float, seconds_per_step: float, device_kind: str) -> dict[str, float]:
    """Returns how much of a device's computing power the updates use.

    Args:
        operations: floating-point operations of one update, divided by the number of devices.
        seconds_per_step: seconds that one update takes.
        device_kind: the name that JAX gives the device.

    Returns:
        flops_per_second: floating-point operations that one device does per second.
        mfu: `flops_per_second` as a share of the device's peak in bfloat16; left out if the peak is
            unknown.
    """
    rate = operations / seconds_per_step
    peak = BFLOAT16.get(device_kind)
    return {"flops_per_second": rate} | ({"mfu": rate / peak} if peak else {})
