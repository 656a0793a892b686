"""Geometry: pictures are cut as players show them: turned, mirrored, stretched."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from stunet.errors import UserError
from stunet.prepare.decode import decode_clips, picture_size
from stunet.prepare.geometry import _ORIENTATIONS


def write(path, picture, matrix=None, aspect=None, codec="libx264", pix_fmt="yuv444p"):
    """Writes a video of one picture, which lasts for a second, with such a display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=4)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "4"}
        if matrix:
            stream.set_display_matrix(matrix)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("signs", _ORIENTATIONS)
def test_all_eight_orientations_are_those_of_the_display_matrix(tmp_path, signs):
    # Four areas of different grey.
    picture = np.kron([[30, 90], [150, 210]], np.ones((24, 32)))[..., None].repeat(3, -1)
    a, b, c, d = signs
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "a.mp4", picture.astype(np.uint8), matrix)
    # Each area goes where the matrix takes its centre: x' = a x + c y, y' = b x + d y.
    expected = np.zeros((2, 2))
    for y, x in itertools.product((-1, 1), repeat=2):
        to_x, to_y = a * x + c * y, b * x + d * y
        expected[(to_y + 1) // 2, (to_x + 1) // 2] = picture[24 + 12 * y, 32 + 16 * x, 0]
    height, width = (64, 48) if a == 0 else (48, 64)
    assert picture_size(path) == (height, width)
    clip = next(decode_clips(path, 4, 4, height, width, channels=1))
    areas = clip[0, :, :, 0].reshape(2, height // 2, 2, width // 2).mean(axis=(1, 3))
    np.testing.assert_allclose(areas, expected, atol=4)


def test_a_turn_by_another_angle_is_refused(tmp_path):
    half = int(0.5**0.5 * 2**16)
    matrix = [half, half, 0, -half, half, 0, 0, 0, 1 << 30]
    path = write(tmp_path / "a.mp4", np.zeros((48, 64, 3), np.uint8), matrix)
    with pytest.raises(UserError, match=r"a\.mp4 .* no multiple of 90 degrees"):
        next(decode_clips(path, 4, 4, 48, 64))


def test_pixels_of_a_video_have_the_shape_that_it_states(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    assert picture_size(write(tmp_path / "a.mp4", picture, aspect=Fraction(4, 3))) == (48, 85)
    assert picture_size(write(tmp_path / "a.mkv", picture, aspect=Fraction(1, 2))) == (48, 32)


def test_pixels_of_a_gif_are_square_whatever_its_header_says(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 255
    path = write(tmp_path / "a.gif", picture, codec="gif", pix_fmt="rgb8")
    content = bytearray(path.read_bytes())
    content[12] = 0xFF  # (255 + 15) / 64, about 4.2
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio > 4
    assert picture_size(path) == (48, 64)
    clip = next(decode_clips(path, 4, 4, 48, 64, channels=1))
    np.testing.assert_allclose(clip[0, :, :, 0], picture[..., 0], atol=3)
