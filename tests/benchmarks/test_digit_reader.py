"""What is read off clips of moving digits is what their captions say, whatever the handwriting."""

import collections

import digit_reader
import numpy as np
import pytest
from scipy import ndimage

from stunet.data.synthetic.moving_digits import DIRECTIONS, MovingDigits
from stunet.errors import UserError

SOURCE = MovingDigits("val", 8, 16, 16)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


@pytest.fixture(scope="module")
def reader():
    return digit_reader.train_reader(SOURCE)


@pytest.fixture(scope="module")
def real():
    """One clip of each combination, and its truth."""
    chosen = digit_reader.balanced(SOURCE, 120)
    clips = np.stack([SOURCE[i]["video"] for i in chosen]).astype(np.float32) / 127.5 - 1
    return clips, [SOURCE.truth(i)[0] for i in chosen]


def shares(reader, clips, digits):
    return {said: hits.mean() for said, hits in reader.read(clips).agrees(digits).items()}


def test_real_clips_of_unseen_handwriting_are_read_right(reader, real):
    found = shares(reader, *real)
    assert found["digit"] > 0.95
    assert found["direction"] == found["speed"] == 1
    assert found["all three"] == found["digit"]


def test_a_clip_played_backwards_goes_the_other_way(reader, real):
    clips, _ = real
    forwards, backwards = reader.read(clips), reader.read(clips[:, ::-1])
    assert backwards.direction == [OPPOSITE[way] for way in forwards.direction]
    assert backwards.speed == forwards.speed
    np.testing.assert_array_equal(backwards.digit, forwards.digit)
    transposed = reader.read(clips.swapaxes(2, 3)).direction
    turned = {"left": "up", "right": "down", "up": "left", "down": "right"}
    assert transposed == [turned[way] for way in forwards.direction]


def test_blur_and_noise_hide_little(reader, real):
    clips, digits = real
    blurred = ndimage.gaussian_filter(clips, (0, 0, 0.4, 0.4, 0), mode="wrap")
    noisy = blurred + np.random.default_rng(0).normal(0, 0.1, clips.shape).astype(np.float32)
    found = shares(reader, noisy, digits)
    assert found["digit"] > 0.9
    assert found["direction"] > 0.97


def test_captions_of_other_clips_are_followed_by_chance(reader, real):
    clips, digits = real
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(digits)) for _ in range(40)]
    reading = reader.read(clips)
    found = [reading.agrees([digits[i] for i in order]) for order in orders]
    for said, chance in digit_reader.CHANCE.items():
        assert np.mean([f[said] for f in found]) == pytest.approx(chance, abs=0.02)


def test_what_stands_still_goes_nowhere(reader, real):
    still = np.repeat(real[0][:, :1], SOURCE.frames, axis=1)
    assert set(reader.read(still).direction) == {""}


@pytest.mark.parametrize("num", [40, 120, 250])
def test_chosen_clips_are_balanced(num):
    chosen = digit_reader.balanced(SOURCE, num)
    assert len(set(chosen)) == num
    truths = [SOURCE.truth(i)[0] for i in chosen]
    for said, most in {"digit": 1, "direction": 3}.items():
        counts = collections.Counter(getattr(truth, said) for truth in truths)
        assert len(counts) == digit_reader.WAYS[said]
        assert max(counts.values()) - min(counts.values()) <= most
    assert set(DIRECTIONS) == {truth.direction for truth in truths}


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UserError, match=r"single moving digit can be read: .* data.num_digits"):
        digit_reader.train_reader(MovingDigits("val", 4, 16, 16, num_digits=2))
    with pytest.raises(UserError, match="held-out clips; ask for fewer than 12000"):
        digit_reader.balanced(SOURCE, 12_000)
