"""Intervals and tests against scipy's, against tables, and against what they promise."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from stunet.report.statistics import (
    Interval,
    holm,
    paired_difference,
    rounding_variance,
    share_interval,
    t_interval,
)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_is_scipys(n, confidence):
    values = np.random.default_rng(n).normal(3.0, 2.0, n).tolist()
    found = t_interval(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.n == n
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-9)


def test_quantiles_of_one_and_two_degrees_of_freedom_have_closed_forms():
    # Two values a, b: the standard error is |a - b| / 2.
    assert t_interval([0.0, 2.0]).half == pytest.approx(math.tan(0.475 * math.pi))
    # Three values 0, 1, 2: a standard error of 1 / sqrt(3), and t = x sqrt(2 / (1 - x²)), x = 0.95.
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert t_interval([0.0, 1.0, 2.0]).half == pytest.approx(t / math.sqrt(3))


def test_19_of_20_intervals_hold_the_truth():
    experiments = np.random.default_rng(0).normal(1.0, 0.5, (4000, 3))
    held = [(i := t_interval(values.tolist())).low <= 1.0 <= i.high for values in experiments]
    # Three standard deviations of the share of 4000.
    assert np.mean(held) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_one_value_has_no_interval_and_tells_nothing_apart():
    found = t_interval([0.5])
    assert (found.mean, found.half, found.n) == (0.5, None, 1)
    assert not found.excludes_zero()


def test_what_seeds_share_cancels_in_pairs():
    a = {0: 1.0, 1: 11.0, 2: 21.1}
    b = {2: 20.0, 0: 0.1, 1: 10.0, 9: 7.0}
    gap = paired_difference(a, b)
    assert gap.n == 3
    assert gap.mean == pytest.approx(1.0)
    assert gap.excludes_zero()
    assert not paired_difference(a, {0: 5.0, 1: 3.0, 2: 21.0}).excludes_zero()
    assert paired_difference(a, {7: 1.0}) is None


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (7, 20), (20, 20), (600, 1000)])
def test_the_interval_of_a_share_is_scipys_wilson(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(share_interval(hits, n), [expected.low, expected.high], atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_p_value_is_scipys_paired_t_test(n, confidence):
    a, b = np.random.default_rng(n).normal([[1.0], [1.3]], 0.4, (2, n)).tolist()
    lead = paired_difference(dict(enumerate(a)), dict(enumerate(b)), confidence)
    assert lead.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert (lead.p_value < 1 - confidence) == lead.excludes_zero()
    assert lead.scaled(-100).p_value == pytest.approx(lead.p_value)


def test_the_p_value_of_what_does_not_vary():
    assert t_interval([0.5]).p_value == 1
    assert t_interval([0.0, 0.0]).p_value == 1
    assert Interval(0.5, 0.0, 3).p_value == 0


def test_holm_is_the_closed_test_of_bonferroni():
    """A hypothesis is rejected if Bonferroni rejects each intersection of hypotheses with it."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 6):
        p_values = np.r_[rng.uniform(0, 0.1, count - 1), rng.uniform()].tolist()
        expected = [0.0] * count
        for size in range(1, count + 1):
            for chosen in itertools.combinations(range(count), size):
                bonferroni = min(1.0, size * min(p_values[i] for i in chosen))
                for i in chosen:
                    expected[i] = max(expected[i], bonferroni)
        assert holm(p_values) == pytest.approx(expected)
    assert holm([]) == []


def test_rounding_is_the_variance_that_a_lattice_hides():
    # The mean of n clips that are 0 or 1 is rounded to a multiple of 1/n.
    values = np.random.default_rng(0).normal(0.5, 1.0, (2, 100_000))
    steps = np.array([[1 / 4], [1 / 10]])
    errors = np.diff(np.round(values / steps) * steps - values, axis=0)
    few, many = [[0, 1, 1, 1], [1, 1, 1, 1]], [[1] * 10, [0] * 10]
    assert rounding_variance(few, many) == pytest.approx(errors.var(), rel=0.02)
    assert rounding_variance([[], []], [[], []]) == rounding_variance([], []) == 0
    # Three seeds that differ by the same step are no proof.
    a, b = {0: 1.0, 1: 1.0, 2: 1.0}, {0: 0.5, 1: 0.5, 2: 0.5}
    rounding = rounding_variance([[1, 1]] * 3, [[0, 1]] * 3)
    assert paired_difference(a, b).p_value == 0
    assert paired_difference(a, b, rounding=rounding).p_value > 0.05
