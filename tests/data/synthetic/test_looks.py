"""Looks: captions name what is seen, a clip looks the same in every size, and motion stays true."""

import re

import numpy as np
import pytest

from stunet.configs import schema
from stunet.data.synthetic import looks
from stunet.data.synthetic.moving_digits import GREY, MovingDigits
from stunet.errors import UserError


def source(look: str, scale: int = 1, **options) -> MovingDigits:
    arguments = dict(split="train", frames=4, height=32, width=32, digit_size=16, speed_factor=1.0)
    for name in ("height", "width", "digit_size", "speed_factor"):
        arguments[name] *= scale
    return MovingDigits(**arguments | options, channels=3, look=look)


def nearest(colour: np.ndarray, table: dict) -> str:
    return min(table, key=lambda name: np.abs(np.array(table[name]) * 255 - colour).sum())


def test_the_keys_choices_are_the_looks():
    (field,) = (field for name, field in schema.fields() if name == "data.look")
    assert field.metadata["choices"] == (GREY, *looks.LOOKS)


def test_captions_name_the_colours_that_are_seen():
    clips, seen = source("colours"), set()
    for i in range(60):
        example = clips[i]
        words = re.fullmatch(
            r"an? (\w+) (\d) moving \w+(, \w+)?, on (\w+)( stripes| checks| dots)?",
            example["caption"],
        )
        shape, digit, _, ground, pattern = words.groups()
        frame = example["video"][0].astype(float).reshape(-1, 3)
        value = frame.max(axis=1)
        assert nearest(frame[value.argmax()], looks.SHAPE_COLOURS) == shape
        assert nearest(np.median(frame[value < 110], axis=0), looks.GROUND_COLOURS) == ground
        # A pattern has two tones, and a plain ground one.
        _, counts = np.unique(frame[value < 110], axis=0, return_counts=True)
        assert ((counts > 0.1 * len(frame)).sum() > 1) == bool(pattern)
        assert str(clips.truth(i)[0].digit) == digit
        seen.add((shape, ground, pattern))
    assert len(seen) > 40


def test_a_shape_is_brighter_than_every_ground():
    assert min(max(colour) for colour in looks.SHAPE_COLOURS.values()) >= 0.9
    brightest = max(max(colour) for colour in looks.GROUND_COLOURS.values())
    assert brightest * max(looks._TONES) <= 0.42


@pytest.mark.parametrize("look", looks.LOOKS)
def test_the_digits_are_those_of_grey_clips_and_the_captions_those_of_colours(look):
    grey, drawn, colours = source(GREY), source(look), source("colours")
    for i in range(20):
        (white,), (coloured,) = grey.truth(i), drawn.truth(i)
        assert (white.digit, white.image, white.velocity) == (
            coloured.digit,
            coloured.image,
            coloured.velocity,
        )
        assert drawn[i]["caption"] == colours[i]["caption"]
        assert drawn[i]["video"].shape == (4, 32, 32, 3)


def test_digits_cross_only_the_edges_that_lie_on_their_way():
    clips, crossing = source("colours"), 0
    for i in range(200):
        (digit,) = clips.truth(i)
        beside, along = digit.start if digit.direction in ("left", "right") else digit.start[::-1]
        assert 0 <= beside <= 16
        crossing += along > 16
    assert 60 < crossing < 120


@pytest.mark.parametrize("pattern", looks.PATTERNS)
def test_a_pattern_that_is_drawn_large_shrinks_to_the_small_one(pattern):
    ground = looks.Ground("blue", pattern, (0.3, 0.6))
    small, large = (
        looks.draw("colours", [np.zeros((1, side, side))], ["red"], ground) for side in (32, 128)
    )
    shrunk = large[0].astype(float).reshape(32, 4, 32, 4, 3).mean((1, 3))
    np.testing.assert_allclose(small[0], shrunk, atol=14)


@pytest.mark.parametrize("look", looks.LOOKS)
def test_grounds_stand_still_and_join_at_the_edges(look):
    for pattern in looks.PATTERNS:
        ground = looks.Ground("purple", pattern, (0.2, 0.7))
        clip = looks.draw(look, [np.zeros((3, 32, 32))], ["red"], ground).astype(int)
        assert (clip == clip[:1]).all()
        twice = looks.draw(look, [np.zeros((1, 32, 64))], ["red"], ground).astype(int)
        np.testing.assert_allclose(twice[0, :, 32:], clip[0], atol=1)


def test_a_picture_names_no_motion():
    clips = MovingDigits("train", 1, 32, 32, 3, digit_size=16, look="colours")
    assert re.fullmatch(r"a \w+ \d on \w+( \w+)?", clips[0]["caption"])


def test_two_digits_share_a_ground_and_the_second_hides_the_first():
    clips = source("colours", num_digits=2)
    assert re.fullmatch(r"a .* and a \w+ \d moving .*, on \w+( \w+)?", clips[1]["caption"])
    cover = np.ones((1, 8, 8))
    clip = looks.draw("colours", [cover, cover], ["red", "white"], looks.Ground("grey", "plain"))
    assert (clip == round(255 * looks.SHAPE_COLOURS["white"][0])).all()


def test_looks_that_cannot_be_drawn_are_refused():
    with pytest.raises(UserError, match=r"has colours; set data.channels to 3"):
        MovingDigits("train", 1, 32, 32, 1, look="neon")
    with pytest.raises(UserError, match="did you mean 'neon'"):
        source("neno")


def test_a_trail_lies_behind_the_digit_and_is_longer_if_it_is_faster():
    plain, trailing = source("colours", frames=1), source("colours", frames=1, trail=0.6)
    lengths = {}
    for i in range(120):
        (digit,) = trailing.truth(i)
        # How much brighter each pixel is than without a trail, summed across the way.
        more = np.abs(trailing[i]["video"][0].astype(float) - plain[i]["video"][0]).sum(-1)
        more = more.sum(0 if digit.direction in ("left", "right") else 1)
        where = np.angle((more * np.exp(2j * np.pi * np.arange(32) / 32)).sum()) * 32 / (2 * np.pi)
        begin = digit.start[1 if digit.direction in ("left", "right") else 0]
        ahead = (where - (begin + 7.5) + 16) % 32 - 16
        sign = 1 if digit.direction in ("right", "down") else -1
        lengths.setdefault(digit.speed, []).append(-sign * ahead)
    means = [np.mean(lengths[speed]) for speed in ("slowly", "", "fast")]
    assert 0 < means[0] < means[1] < means[2]
    assert np.mean(np.concatenate([*lengths.values()]) > 0) > 0.9


def test_with_a_trail_pictures_say_how_a_digit_moves_and_clips_look_as_their_pictures():
    picture = source("colours", frames=1, trail=0.6)
    clip = source("colours", frames=4, trail=0.6)
    for i in range(20):
        assert picture[i]["caption"] == clip[i]["caption"]
        np.testing.assert_array_equal(picture[i]["video"][0], clip[i]["video"][0])


def test_trails_that_cannot_be_drawn_are_refused():
    with pytest.raises(UserError, match="leave no trail"):
        source(GREY, trail=0.5)
    with pytest.raises(UserError, match="0 to 1, not 2"):
        source("neon", trail=2)
