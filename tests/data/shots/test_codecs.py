"""Codecs give back the pictures that were asked for, nearly as they were, from any group."""

import numpy as np
import pytest

from stunet.data.shots.codecs import CODECS, Box, Codec, cut_out, make_codec
from stunet.errors import UserError

HEIGHT, WIDTH = 48, 62


def moving_wave(count=20):
    """Returns smooth pictures uint8 [count, h, w, 3], each different from all others."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pictures = [
        np.stack([np.sin((rows * (c + 1) + columns + 5 * i) / 9) for c in range(3)], -1)
        for i in range(count)
    ]
    return (127 + 120 * np.array(pictures)).astype(np.uint8)


def pixels(frames):
    return cut_out(frames, Box(0, 0, HEIGHT, WIDTH), HEIGHT, WIDTH, 3).astype(float)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("wanted", [[0], [19], [3, 4, 5], [1, 9, 10, 18], list(range(20))])
def test_wanted_pictures_come_back(name, wanted):
    pictures, codec = moving_wave(), make_codec(name)
    packets = list(codec.encode(pictures))
    assert len(packets) == len(pictures)
    back = pixels(codec.decode(packets, wanted, HEIGHT, WIDTH))
    # A neighbouring picture is far from it.
    error = np.sqrt(np.mean((back - pictures[wanted]) ** 2))
    assert error == 0 if name == "raw" else error < 8
    assert np.sqrt(np.mean(np.diff(pictures.astype(float), axis=0) ** 2)) > 20


def test_only_packets_of_the_group_are_needed():
    codec = Codec("h264", 18, 4)
    packets = list(codec.encode(moving_wave()))
    whole = pixels(codec.decode(packets, [5, 14], HEIGHT, WIDTH))
    needed = [*range(4, 6), *range(12, 15)]
    holes = [packet if i in needed else b"" for i, packet in enumerate(packets)]
    np.testing.assert_array_equal(pixels(codec.decode(holes, [5, 14], HEIGHT, WIDTH)), whole)


def test_packets_of_two_encodings_may_follow_each_other():
    codec, pictures = Codec("h264", 12, 4), moving_wave()
    packets = [*codec.encode(pictures[:8]), *codec.encode(pictures[8:])]
    back = pixels(codec.decode(packets, range(20), HEIGHT, WIDTH))
    assert np.sqrt(np.mean((back - pictures) ** 2)) < 8


@pytest.mark.parametrize("name", CODECS)
def test_encoding_twice_gives_the_same_bytes(name):
    codec = make_codec(name)
    assert list(codec.encode(moving_wave())) == list(codec.encode(moving_wave()))


@pytest.mark.parametrize("name", CODECS)
def test_grey_has_the_brightness_of_the_colours(name):
    pictures, codec = moving_wave(3), make_codec(name)
    frames = codec.decode(list(codec.encode(pictures)), [1], HEIGHT, WIDTH)
    grey = cut_out(frames, Box(0, 0, HEIGHT, WIDTH), HEIGHT, WIDTH, 1)[0, ..., 0]
    luma = pictures[1] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma).mean() < 2


@pytest.mark.parametrize("name", CODECS)
def test_damaged_packets_and_other_sizes_are_refused(name):
    codec = make_codec(name)
    packets = list(codec.encode(moving_wave(3)))
    with pytest.raises((ValueError, OSError)):
        codec.decode([b"no picture", *packets[1:]], [0], HEIGHT, WIDTH)
    with pytest.raises((ValueError, OSError)):
        codec.decode(packets, [0], HEIGHT, WIDTH + 2)


@pytest.mark.parametrize("name", ["raw", "h264"])
def test_a_part_is_cut_out_and_shrunk_by_averaging(name):
    (picture,), codec = moving_wave(1), make_codec(name)
    frames = codec.decode(list(codec.encode([picture])), [0], HEIGHT, WIDTH)
    half = cut_out(frames, Box(8, 10, 40, 20), 20, 10, 3)[0]
    means = picture[8:48, 10:30].reshape(20, 2, 10, 2, 3).mean((1, 3))
    assert np.abs(half - means).mean() < (2 if name == "raw" else 6)


def test_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="unknown codec 'jpg'; did you mean 'jpeg'"):
        make_codec("jpg")
    with pytest.raises(UserError, match="takes quality from 0 to 51, not 60"):
        make_codec("h264", 60)
    with pytest.raises(UserError, match="pictures in each group from 1 to 1, not 8"):
        make_codec("webp", None, 8)
