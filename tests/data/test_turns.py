"""Turns have exact shares in every window, and every position can be computed by itself."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stunet.data.turns import PERIOD, Turns, whole_shares

SOME = [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 7.0, 30.0]
WEIGHTS = st.lists(st.sampled_from(SOME), min_size=1, max_size=6)


def members(turns, begin, end):
    return np.array([turns.at(position)[0] for position in range(begin, end)])


@settings(max_examples=30)
@given(WEIGHTS, st.integers(0, 10**9), st.integers(1, 400))
def test_shares_are_exact_in_any_window(weights, begin, length):
    turns = Turns(weights)
    found = np.bincount(members(turns, begin, begin + length), minlength=len(weights))
    for count, weight in zip(found, weights, strict=True):
        assert abs(count - length * weight / sum(weights)) < 2


@settings(max_examples=30)
@given(WEIGHTS)
def test_shares_are_within_one_turn_from_the_beginning_on(weights):
    turns, exact = Turns(weights), [Fraction(str(weight)) for weight in weights]
    for length in range(2 * min(turns.period, 500)):
        for count, weight in zip(turns.counts(length), exact, strict=True):
            assert abs(count - length * weight / sum(exact)) < 1


@settings(max_examples=30)
@given(WEIGHTS, st.integers(0, 10**12))
def test_each_member_gets_its_own_turns_one_after_the_other(weights, begin):
    turns = Turns(weights)
    counts = turns.counts(begin)
    for position in range(begin, begin + 100):
        member, own = turns.at(position)
        assert own == counts[member]
        counts[member] += 1
        assert counts == turns.counts(position + 1)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [([3.0], (1,)), ([0.3, 0.1], (3, 1)), ([2.0, 2.0, 4.0], (1, 1, 2)), ([1.0, 9999.0], (1, 9999))],
)
def test_shares_are_exact_where_a_period_holds_them(weights, shares):
    assert whole_shares(weights) == shares


def test_other_shares_are_rounded_to_parts_of_a_period():
    weights = np.sqrt([2, 3, 5, 7])
    shares = whole_shares(weights.tolist())
    assert sum(shares) == PERIOD
    assert np.abs(shares / weights * weights.sum() / PERIOD - 1).max() < 1e-3
    assert whole_shares([1.0, 1e-7])[1] == 1


def test_turns_alternate_rather_than_come_in_runs():
    runs = [len(list(run)) for _, run in itertools.groupby(members(Turns([1.0, 1.0, 2.0]), 0, 400))]
    assert max(runs) <= 2
