"""The reader finds in clips of moving digits what their captions say, whatever the handwriting."""

import collections

import numpy as np
import pytest
from scipy import ndimage

from stunet.data.synthetic.moving_digits import DIRECTIONS, MovingDigits
from stunet.errors import UserError
from stunet.evaluate import digits
from stunet.evaluate.groups import METRIC_GROUPS
from stunet.evaluate.scene import scene_of

SOURCE = MovingDigits("val", 8, 16, 16)
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


@pytest.fixture(scope="module")
def reader():
    return digits.train_reader(SOURCE)


@pytest.fixture(scope="module")
def real():
    """One clip of each combination, and its truth."""
    chosen = digits.balanced(SOURCE, 120)
    clips = np.stack([SOURCE[i]["video"] for i in chosen]).astype(np.float32) / 127.5 - 1
    return clips, [SOURCE.truth(i)[0] for i in chosen]


def shares(reader, clips, truths):
    return {said: hits.mean() for said, hits in reader.read(clips).agrees(truths).items()}


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
    clips, truths = real
    blurred = ndimage.gaussian_filter(clips, (0, 0, 0.4, 0.4, 0), mode="wrap")
    noisy = blurred + np.random.default_rng(0).normal(0, 0.1, clips.shape).astype(np.float32)
    found = shares(reader, noisy, truths)
    assert found["digit"] > 0.9
    assert found["direction"] > 0.97


def test_captions_of_other_clips_are_followed_by_chance(reader, real):
    clips, truths = real
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(truths)) for _ in range(40)]
    reading = reader.read(clips)
    found = [reading.agrees([truths[i] for i in order]) for order in orders]
    for said, chance in digits.CHANCE.items():
        assert np.mean([f[said] for f in found]) == pytest.approx(chance, abs=0.02)


def test_what_stands_still_goes_nowhere(reader, real):
    still = np.repeat(real[0][:, :1], SOURCE.frames, axis=1)
    assert set(reader.read(still).direction) == {""}


@pytest.mark.parametrize("num", [40, 120, 250])
def test_chosen_clips_are_balanced(num):
    chosen = digits.balanced(SOURCE, num)
    assert len(set(chosen)) == num
    truths = [SOURCE.truth(i)[0] for i in chosen]
    for said, most in {"digit": 1, "direction": 3}.items():
        counts = collections.Counter(getattr(truth, said) for truth in truths)
        assert len(counts) == digits.WAYS[said]
        assert max(counts.values()) - min(counts.values()) <= most
    assert set(DIRECTIONS) == {truth.direction for truth in truths}


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UserError, match=r"single moving digit can be read: .* data.num_digits"):
        digits.train_reader(MovingDigits("val", 4, 16, 16, num_digits=2))
    with pytest.raises(UserError, match="held-out clips; ask for fewer than 12000"):
        digits.balanced(SOURCE, 12_000)


def in_colour(path="", **options) -> MovingDigits:
    options = dict(digit_size=16, path=path, look="colours") | options
    return MovingDigits("val", 8, 32, 32, 3, **options)


def scaled(source, indices):
    return np.stack([source[i]["video"] for i in indices]).astype(np.float32) / 127.5 - 1


def test_clips_in_colour_are_read_right_and_clips_of_other_captions_are_not():
    source, some = in_colour(), range(150)
    asked = scene_of(source, some).asked
    measured = digits.measure(scaled(source, some), asked)
    found = {name: hits.mean() for name, hits in measured.items()}
    assert found["right_digit"] > 0.9
    for part in ("direction", "speed", "colour", "ground"):
        assert found[f"right_{part}"] > 0.98
    assert found["right_pattern"] > 0.97
    assert 0.9 * found["right_digit"] < found["right_caption"] <= found["right_digit"]
    # Captions of the clip after each clip.
    other = digits.measure(scaled(source, some), scene_of(source, range(1, 151)).asked)
    chances = {"digit": 10, "direction": 4, "speed": 3, "colour": 6, "ground": 6, "pattern": 4}
    for part, ways in chances.items():
        assert other[f"right_{part}"].mean() == pytest.approx(1 / ways, abs=0.12)
    assert other["right_caption"].mean() < 0.02


def test_blurred_and_noisy_colours_are_still_read():
    source, some = in_colour(), range(100)
    clips = ndimage.gaussian_filter(scaled(source, some), (0, 0, 0.5, 0.5, 0), mode="wrap")
    clips += np.random.default_rng(0).normal(0, 0.08, clips.shape).astype(np.float32)
    found = digits.measure(clips, scene_of(source, some).asked)
    for part in ("direction", "speed", "colour", "ground", "pattern"):
        assert found[f"right_{part}"].mean() > 0.93, part


def test_motion_in_colour_is_tracked_as_steady_and_as_asked():
    source, some = in_colour(), range(40)
    scene = scene_of(source, some)
    found = METRIC_GROUPS["coherence"].measure(scaled(source, some), scene, ())
    assert found["coherent"].mean() == found["faithful"].mean() == 1


def test_the_captions_of_other_clips_say_nothing_that_can_be_read():
    for source in (in_colour(num_digits=2), in_colour(look="neon")):
        scene = scene_of(source, [0, 1])
        assert scene.asked is None
        assert METRIC_GROUPS["captions"].measure(scaled(source, [0, 1]), scene, ()) == {}
    # A network without text was asked for nothing.
    assert scene_of(in_colour(), [0], captions=False, keyframes=False).asked is None


def test_pictures_are_read_and_show_no_motion():
    source = MovingDigits("val", 1, 32, 32, 3, digit_size=16, look="colours")
    found = digits.measure(scaled(source, range(100)), scene_of(source, range(100)).asked)
    assert not {"right_direction", "right_speed"} & found.keys()
    assert found["right_digit"].mean() > 0.85
    assert found["right_colour"].mean() == 1


def test_clips_with_trails_are_read_right():
    source, some = in_colour(trail=0.6), range(100)
    found = digits.measure(scaled(source, some), scene_of(source, some).asked)
    assert found["right_caption"].mean() > 0.8
    assert found["right_direction"].mean() > 0.97
