"""Timing: which picture each frame shows, whatever the file's clock begins with or jumps to."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stunet.prepare.timing import MAX_STILL, Break, Picture, Shown, resample

RATES = st.sampled_from([1, 8, 12, 23.976, 24, 25, 29.97, 30, 60])
# Milliseconds from each picture to the next: clocks of webm, films and stuttering cameras.
STEPS = st.lists(st.integers(0, 400), min_size=1, max_size=40)


def timed(steps, start=0):
    """Pictures 0, 1, ... that follow each other after so many milliseconds."""
    pictures, now = [], Fraction(start, 1000)
    for i, step in enumerate(steps):
        pictures.append(Picture(i, now, Fraction(step, 1000)))
        now += Fraction(step, 1000)
    return pictures


def shown(entries):
    return [entry.content for entry in entries for _ in range(entry.times)]


@given(STEPS, RATES)
def test_each_frame_shows_the_last_picture_that_rounds_to_it(steps, rate):
    pictures, exact = timed(steps), Fraction(rate).limit_denominator(10**6)
    frames = shown(resample(pictures, rate))
    numbers = [math.floor(p.start * exact + Fraction(1, 2)) for p in pictures]
    end = math.floor(sum(steps) * exact / 1000 + Fraction(1, 2))
    assert frames == [max(i for i, n in enumerate(numbers) if n <= k) for k in range(end)]


@given(STEPS, RATES, st.integers(0, 10**9))
def test_the_time_at_which_a_file_starts_does_not_matter(steps, rate, start):
    assert list(resample(timed(steps, start), rate)) == list(resample(timed(steps), rate))


@given(STEPS, STEPS, st.sampled_from([-1, MAX_STILL * 1000 + 1, 3_600_000, 10**12]))
def test_parts_on_both_sides_of_a_jump_are_what_they_are_alone(before, after, jump):
    first = timed(before)
    # A jump back leads behind the last picture's start, which is the latest that counts.
    last = 1000 * first[-1].start
    second = timed(after, int(last + jump if jump > 0 else max(0, last + jump)))
    if second[0].start == first[-1].start:
        return  # the first part has one picture at time 0, behind which nothing lies
    entries = list(resample(first + second, 10))
    (place,) = [i for i, entry in enumerate(entries) if isinstance(entry, Break)]
    assert entries[:place] == list(resample(first, 10))
    assert entries[place + 1 :] == list(resample(timed(after), 10))


@pytest.mark.parametrize("seconds", [MAX_STILL + 1, 3600, 10**9])
def test_a_last_picture_that_stays_for_long_is_cut(seconds):
    *frames, end = resample([Picture("a", Fraction(0), Fraction(seconds))], 4)
    assert frames == [Shown("a", 4 * MAX_STILL)]
    assert "stays for" in end.reason
