"""Says which checkpoints of a run stay, and when the newest checkpoint is too old."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Retention:
    """Says which checkpoints of a run stay when a new one is complete.

    Attributes:
        latest: how many of the newest checkpoints stay.
        every: each checkpoint whose step is a multiple of this number stays for ever. 0 turns this
            rule off.
        best: name of a metric. The checkpoint with the lowest value of the metric stays. ""
            turns this rule off.
        highest: True if the checkpoint with the highest value of `best` stays instead.
    """

    latest: int
    every: int = 0
    best: str = ""
    highest: bool = False

    def kept(self, steps: Sequence[int], values: Mapping[int, float]) -> set[int]:
        """Returns the steps of the checkpoints that stay.

        Args:
            steps: step of each checkpoint.
            values: value of the metric `best` by the step at which it was measured.
        """
        kept = set(sorted(steps)[-self.latest :])
        if self.every:
            kept |= {step for step in steps if step % self.every == 0}
        best = self.find_best(steps, values) if self.best else None
        return kept if best is None else kept | {best}

    def find_best(self, steps: Sequence[int], values: Mapping[int, float]) -> int | None:
        """Returns the step of the best checkpoint, and of equally good ones, the newest.

        A checkpoint without a finite value is never the best. Returns None if there is no other.
        The arguments are those of `kept`.
        """
        measured = [step for step in steps if math.isfinite(values.get(step, math.nan))]
        sign = -1 if self.highest else 1
        return min(measured, key=lambda step: (sign * values[step], -step), default=None)


class SaveTimer:
    """Tells when the last checkpoint is so old that a new one should be saved.

    Args:
        seconds: largest age of the last checkpoint. 0 sets no limit.
        now: clock that never goes back, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self._seconds, self._now = seconds, now
        self.saved()

    def saved(self) -> None:
        """Notes that a checkpoint is being saved."""
        self._last, self._has_asked = self._now(), False

    def asks(self) -> bool:
        """Tells whether to save a checkpoint now. Returns True only once for each checkpoint.

        Several processes may take a few updates to agree that they save. A second True in the
        meantime would be of no use.
        """
        if not self._seconds or self._has_asked or self._now() - self._last < self._seconds:
            return False
        self._has_asked = True
        return True
