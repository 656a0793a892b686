"""Says which checkpoints of a run stay, and when time asks for one."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Retention:
    """Says which checkpoints of a run stay when a new one is complete.

    Attributes:
        latest: number of the latest checkpoints that stay.
        every: each checkpoint whose step is a multiple of this stays for ever. 0: none does.
        best: metric whose lowest value makes a checkpoint stay. "": none does.
    """

    latest: int
    every: int = 0
    best: str = ""

    def kept(self, steps: Sequence[int], values: Mapping[int, float]) -> set[int]:
        """Returns the steps of the checkpoints that stay.

        Args:
            steps: step of each checkpoint.
            values: value of the metric `best` by the step at which it was measured. A checkpoint
                without a value, or with one that is not finite, is not the best one.
        """
        kept = set(sorted(steps)[-self.latest :])
        if self.every:
            kept |= {step for step in steps if step % self.every == 0}
        measured = [step for step in steps if math.isfinite(values.get(step, math.nan))]
        if self.best and measured:
            # Of equal ones, the newest.
            kept.add(min(measured, key=lambda step: (values[step], -step)))
        return kept


class SaveTimer:
    """Tells when the last checkpoint is so old that time asks for another one.

    Args:
        seconds: largest age of the last checkpoint. 0: time never asks.
        now: clock that never goes back, in seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self._seconds, self._now = seconds, now
        self.saved()

    def saved(self) -> None:
        """Notes that a checkpoint is being saved."""
        self._last, self._has_asked = self._now(), False

    def asks(self) -> bool:
        """Tells whether to save now. It asks once for each checkpoint.

        Several processes may answer a few updates later. Meanwhile there is nothing to ask again.
        """
        if not self._seconds or self._has_asked or self._now() - self._last < self._seconds:
            return False
        self._has_asked = True
        return True
