"""What a few seeds say of an arm, or a few clips of a share: means and intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import ndtri, stdtrit


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds, and how far the truth may lie from it.

    Attributes:
        mean: of the values.
        half: half the width of the confidence interval around it; None for a single value, of which
            there is none.
        n: how many values.
    """

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)

    def excludes_zero(self) -> bool:
        """Whether a difference of zero lies outside; never so for a single value."""
        return self.half is not None and not self.low <= 0 <= self.high


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean and two-sided interval by Student's t with n - 1 degrees of freedom.

    It holds the true mean in `confidence` of all experiments if values are normal and independent;
    that of two seeds is wide (12.7 standard errors to either side), and rightly so.

    Args:
        values: one of each seed, finite, at least one.
        confidence: in 0..1.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    return Interval(mean, quantile * math.sqrt(variance / n), n)


def share_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (1927) of a share: (low, high) of the probability of which `hits` out of
    `n` are a sample. It stays in 0..1, and is no point where all or none are hits."""
    z = float(ndtri((1 + confidence) / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(
    a: Mapping[int | None, float], b: Mapping[int | None, float], confidence: float = 0.95
) -> Interval | None:
    """The interval of a - b over the seeds that both have, or None if there is no such seed.

    Runs of one seed see the same examples and noise, so that much of what differs between seeds
    cancels in their difference.
    """
    shared = [seed for seed in a if seed in b]
    return t_interval([a[s] - b[s] for s in shared], confidence) if shared else None
