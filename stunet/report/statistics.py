"""Computes confidence intervals of means over seeds, and corrects tests for their number."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import ndtri, stdtr, stdtrit


@dataclasses.dataclass(frozen=True)
class Interval:
    """Holds a mean over seeds and its confidence interval.

    Attributes:
        mean: mean of the values.
        half: half the width of the confidence interval around the mean; None for a single value,
            which has no interval.
        n: number of values.
        confidence: share of experiments whose interval holds the true mean, in 0..1.
    """

    mean: float
    half: float | None
    n: int
    confidence: float = 0.95

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0.0)

    def excludes_zero(self) -> bool:
        """Tells whether zero lies outside of the interval; False for a single value."""
        return self.half is not None and not self.low <= 0 <= self.high

    def scaled(self, factor: float) -> "Interval":
        """Returns the interval of the mean times `factor`, which may be negative."""
        half = None if self.half is None else abs(factor) * self.half
        return dataclasses.replace(self, mean=factor * self.mean, half=half)

    @property
    def p_value(self) -> float:
        """Returns how likely a mean at least this far from zero is if the true mean is zero.

        This is the two-sided t test with n - 1 degrees of freedom. The value is below
        1 - `confidence` exactly if the interval excludes zero. It is 1 for a single value.
        """
        if self.half is None or self.mean == 0:
            return 1.0
        if self.half == 0:
            return 0.0
        t = abs(self.mean) / self.half * _quantile(self.n, self.confidence)
        return float(2 * stdtr(self.n - 1, -t))


def _quantile(n: int, confidence: float) -> float:
    """Returns how many standard errors the interval of n values extends to either side."""
    return float(stdtrit(n - 1, (1 + confidence) / 2))


def t_interval(
    values: Sequence[float], confidence: float = 0.95, rounding: float = 0.0
) -> Interval:
    """Returns the mean and its two-sided interval by Student's t with n - 1 degrees of freedom.

    If values are normal and independent, the interval contains the true mean in a share
    `confidence` of all experiments. At 95% the interval of two values is wide: it extends 12.7
    standard errors to either side.

    Args:
        values: finite values, one for each seed; there must be at least one.
        confidence: share of experiments, in 0..1.
        rounding: variance that is added to that of the values; see `rounding_variance`.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, None, n, confidence)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) + rounding
    return Interval(mean, _quantile(n, confidence) * math.sqrt(variance / n), n, confidence)


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
    a: Mapping[int | None, float],
    b: Mapping[int | None, float],
    confidence: float = 0.95,
    rounding: float = 0.0,
) -> Interval | None:
    """Returns mean and confidence interval of a - b over shared seeds; None if there are none.

    Runs with the same seed see the same examples and the same noise. Much of the variation between
    seeds therefore cancels in the difference.

    Args:
        a: values of the first arm, by seed.
        b: values of the second arm, by seed.
        confidence: share of experiments whose interval holds the true difference, in 0..1.
        rounding: variance that is added to that of the differences; see `rounding_variance`.
    """
    shared = [seed for seed in a if seed in b]
    return t_interval([a[s] - b[s] for s in shared], confidence, rounding) if shared else None


def rounding_variance(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Returns the variance that rounding hides in the difference of two means over clips.

    A share of n clips is a multiple of 1/n. So two or three seeds may differ by exactly the same
    amount by chance, and their variance is then zero. A value that is rounded to steps of h has an
    error with variance h² / 12. The step of a mean over n clips is the distance from the smallest
    to the largest clip, divided by n.

    Args:
        a: values of the clips of the first arm, for each seed; empty if they are not known.
        b: the same for the second arm.
    """
    values = [value for clips in (*a, *b) for value in clips]
    span = max(values, default=0.0) - min(values, default=0.0)
    steps = [[span / len(clips) for clips in arm if clips] for arm in (a, b)]
    return math.fsum(math.fsum(h**2 for h in found) / len(found) / 12 for found in steps if found)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for the number of tests, by Holm's method (1979).

    If all tests whose corrected value is below 0.05 are called clear, at most 5% of experiments
    call any effect clear that is not there, however the tests depend on each other. The k-th
    smallest of m values is multiplied by m - k + 1. No value is corrected to less than a smaller
    one, nor to more than 1.

    Returns:
        The corrected values, in the order of `p_values`.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
