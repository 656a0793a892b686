"""Held-out stretches have their share and stay where they are; slots cover the rest once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stunet.data.shots.slots import Slots, held_out, offsets
from stunet.errors import UserError

lengths = st.lists(st.integers(1, 500), min_size=1, max_size=40).map(
    lambda values: np.array(values, np.int32)
)


@given(lengths, st.sampled_from([0.05, 0.1, 0.3]), st.sampled_from([1.0, 5.0]))
def test_held_out_stretches(frames, fraction, seconds):
    held, unit = held_out(frames, 24, fraction, seconds), round(24 * seconds)
    assert (held >= 0).all()
    assert (held <= frames).all()
    assert held[0] < frames[0]
    # What is left of a shot, and what is held out of it, is nothing or as long as a stretch.
    part = (held > 0) & (held < frames)
    assert (held[part] >= unit).all()
    assert ((frames - held)[part] >= unit).all()


@given(lengths, lengths)
def test_shots_that_are_added_later_change_nothing(frames, more):
    held = held_out(frames, 24, 0.1, 5)
    np.testing.assert_array_equal(
        held_out(np.concatenate([frames, more]), 24, 0.1, 5)[: len(held)], held
    )


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("longest", [200, 2000])
def test_the_share_is_right_in_a_large_set(fraction, longest):
    frames = np.random.default_rng(0).integers(24, longest, 20_000)
    held = held_out(frames, 24, fraction, 5)
    assert held.sum() / frames.sum() == pytest.approx(fraction, rel=0.1)


def test_nothing_is_held_out_on_request_or_of_a_single_short_shot():
    assert not held_out(np.array([5000, 300]), 24, 0, 5).any()
    assert held_out(np.array([130]), 24, 0.5, 5).tolist() == [0]
    assert held_out(np.array([250, 120, 190]), 25, 0.1, 2).tolist() == [50, 0, 50]


@given(lengths, st.integers(1, 100))
def test_slots_cover_each_stretch_once(frames, span):
    slots = Slots(np.zeros_like(frames), frames, span)
    assert len(slots) == (frames // span).sum()
    used = [np.zeros(length, int) for length in frames]
    for slot in map(slots.__getitem__, range(len(slots))):
        used[slot.shot][slot.place : slot.place + span] += 1
        assert 0 <= slot.begin <= slot.place < slot.end == frames[slot.shot] - span + 1
    for shot in used:
        assert shot.sum() == len(shot) // span * span
        assert shot.max() <= 1
    with pytest.raises(IndexError):
        slots[len(slots)]


def test_offsets_show_the_nearest_picture_in_time():
    assert offsets(5, 12, 24).tolist() == [0, 2, 4, 6, 8]
    assert offsets(5, 24, 24).tolist() == [0, 1, 2, 3, 4]
    assert offsets(5, 16, 24).tolist() == [0, 2, 3, 5, 6]
    exact = np.arange(80) * 30 / 12.5
    assert np.abs(offsets(80, 12.5, 30) - exact).max() <= 0.5
    with pytest.raises(UserError, match=r"have 24 frames per second, and data\.fps is 25"):
        offsets(5, 25, 24)
