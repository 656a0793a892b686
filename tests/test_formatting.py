"""Tests how values are written for people."""

from stunet.formatting import duration, first_few


def test_durations():
    found = [duration(seconds) for seconds in (0.4, 59.6, 185, 7620)]
    assert found == ["0 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]


def test_long_lists_are_cut():
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
