"""Computes confidence intervals of means over seeds and of shares of clips."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import ndtri, stdtrit


@dataclasses.dataclass(frozen=True)
class Interval:
    """Holds a mean over seeds and its confidence interval.

    Attributes:
        mean: mean of the values.
        half: half the width of the confidence interval around the mean; None for a single value,
            which has no interval.
        n: number of values.
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
        """Tells whether zero lies outside of the interval; False for a single value."""
        return self.half is not None and not self.low <= 0 <= self.high


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns the mean and its two-sided interval by Student's t with n - 1 degrees of freedom.

    If values are normal and independent, the interval contains the true mean in a share
    `confidence` of all experiments. At 95% the interval of two values is wide: it extends 12.7
    standard errors to either side.

    Args:
        values: finite values, one for each seed; there must be at least one.
        confidence: share of experiments, in 0..1.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, None, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    return Interval(mean, quantile * math.sqrt(variance / n), n)


def share_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns Wilson's confidence interval (1927) for a probability, as (low, high).

    The probability is estimated from `hits` out of `n` independent trials. The interval stays
    within 0..1, and its width is above zero even if all trials are hits, or none.

    Args:
        hits: number of hits, 0..n.
        n: number of trials, at least one.
        confidence: share of experiments whose interval holds the probability, in 0..1.
    """
    z = float(ndtri((1 + confidence) / 2))
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(
    a: Mapping[int | None, float], b: Mapping[int | None, float], confidence: float = 0.95
) -> Interval | None:
    """Returns mean and confidence interval of a - b over shared seeds; None if there are none.

    Runs with the same seed see the same examples and the same noise. Much of the variation between
    seeds therefore cancels in the difference.

    Args:
        a: values of the first arm, by seed.
        b: values of the second arm, by seed.
        confidence: share of experiments whose interval holds the true difference, in 0..1.
    """
    shared = [seed for seed in a if seed in b]
    return t_interval([a[s] - b[s] for s in shared], confidence) if shared else None
