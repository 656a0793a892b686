"""Colour: clips show what viewers show of high dynamic range, wide colours and transparency."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from hypothesis import given
from hypothesis import strategies as st

from stunet.errors import UserError
from stunet.prepare import colour
from stunet.prepare.colour import BACKGROUND, _pq, ordinary, over_background
from stunet.prepare.decode import decode_clips

CASES = pathlib.Path(__file__).parent / "cases"


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_colour_is_mixed_with_the_background_by_its_opacity(value, opacity):
    pixel = np.array([[[value, 0, 255, opacity]]], np.uint8)
    share = opacity / 255
    expected = [c * share + BACKGROUND * (1 - share) for c in (value, 0, 255)]
    np.testing.assert_allclose(over_background(pixel)[0, 0], expected, atol=0.51)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("qtrle", "argb"), ("png", "rgba")])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_of_a_video_show_white(tmp_path, codec, pix_fmt, channels):
    frame = np.zeros((16, 24, 4), np.uint8)
    frame[:, 8:16] = [100, 100, 100, 255]
    frame[:, 16:] = [100, 100, 100, 102]  # 40% opaque
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream(codec, rate=4)
        stream.height, stream.width, stream.pix_fmt = 16, 24, pix_fmt
        for _ in range(4):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba")
            container.mux(stream.encode(picture.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    clip = next(decode_clips(tmp_path / "a.mov", 4, 4, 16, 24, channels))
    assert np.all(clip[:, :, :8] == 255)
    np.testing.assert_allclose(clip[:, :, 8:16], 100, atol=1)
    np.testing.assert_allclose(clip[:, :, 16:], 0.4 * 100 + 0.6 * 255, atol=1.5)


def ramp(path, transfer):
    """Writes a lossless video of 10 bits whose grey rises from the left to the right."""
    levels = np.linspace(64, 940, 64).astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.height, stream.width, stream.pix_fmt = 16, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, ColorPrimaries.BT2020
        context.colorspace, context.color_range = 9, 1
        for i in range(2):
            frame = av.VideoFrame(64, 16, "yuv420p10le")
            for plane, row in zip(frame.planes, (levels, 512, 512), strict=True):
                pixels = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                pixels[:, : plane.width] = row
                plane.update(pixels)
            frame.pts, frame.time_base = i, Fraction(1, 2)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("transfer", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_high_dynamic_range_becomes_an_ordinary_ramp(tmp_path, transfer):
    clip = next(decode_clips(ramp(tmp_path / "a.mkv", transfer), 2, 2, 16, 64))
    grey = clip[0, 8].astype(int)
    assert np.ptp(grey, axis=-1).max() <= 2  # grey stays grey
    assert np.all(np.diff(grey[:, 0]) >= 0)
    assert grey[0, 0] <= 2
    assert grey[-1, 0] >= 235
    # The middle of the signal is 93 candela per square metre in PQ and 50 in HLG: mid-tones.
    assert 110 < grey[32, 0] < 180
    assert np.diff(grey[:, 0]).max() < 16  # no steps


def test_hlg_looks_on_ordinary_screens_as_its_signal_does():
    """HLG was made so that ordinary screens may show its signal as it is."""
    signal = np.linspace(0, 65535, 200).astype(np.uint16)[None, :, None].repeat(3, -1)
    shown = ordinary(signal, ColorTrc.ARIB_STD_B67, ColorPrimaries.BT2020)
    np.testing.assert_allclose(shown, signal / 257, atol=10)


@pytest.mark.parametrize("primaries", [ColorPrimaries.BT2020, ColorPrimaries.SMPTE432])
def test_wide_colours_keep_white_and_their_hue(primaries):
    colours = np.array([[[1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    shown = ordinary((colours * 65535).astype(np.uint16), ColorTrc.BT709, primaries)[0].astype(int)
    np.testing.assert_allclose(shown[:2], [[255] * 3, [128] * 3], atol=1)
    assert shown[2:].argmax(axis=1).tolist() == [0, 1, 2]


def test_the_middle_of_pq_is_the_light_that_its_standard_states():
    grey = np.full(
        (1, 1, 3), 0.508078421517399, np.float32
    )  # BT.2100: 100 candela per square metre
    np.testing.assert_allclose(_pq(grey), 100, rtol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_video_tagged_as_hlg_is_mapped_and_an_untagged_one_is_not(channels):
    clip = next(decode_clips(CASES / "hlg.mp4", 4, 8, 48, 64, channels))
    if channels == 3:  # bars of red, green, blue and yellow
        bars = clip[0, [6, 18, 30, 42], 48]
        assert (bars > 150).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    pixels = colour.to_grey(clip[0])[..., None] if channels == 3 else clip[0]
    # The grey half is 19 in the signal, and the bars lose the wideness of their colours.
    np.testing.assert_allclose(pixels[16:, 4:28], 19, atol=6)
    frame = av.VideoFrame(8, 8, "yuv420p")
    assert not colour.is_special(frame)
    frame.color_trc, frame.color_primaries = ColorTrc.BT709, ColorPrimaries.BT709
    assert not colour.is_special(frame)


@pytest.mark.parametrize(
    ("size", "stated", "matrix"),
    [
        ((480, 640), None, Colorspace.ITU601),
        ((720, 1280), None, Colorspace.ITU709),
        ((720, 1280), Colorspace.ITU601, Colorspace.ITU601),
        ((480, 640), Colorspace.ITU709, Colorspace.ITU709),
    ],
)
def test_the_colour_matrix_is_the_stated_one_or_that_which_players_take(
    tmp_path, size, stated, matrix
):
    colours = np.zeros((*size, 3), np.uint8)
    colours[:, : size[1] // 2] = [200, 40, 40]
    colours[:, size[1] // 2 :] = [40, 200, 40]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        stream.options = {"crf": "1", "preset": "ultrafast"}
        if stated is not None:
            stream.codec_context.colorspace = stated
        frame = av.VideoFrame.from_ndarray(colours, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=matrix)
        frame.colorspace = 2 if stated is None else stated  # 2: unspecified
        for i in range(2):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = next(decode_clips(tmp_path / "a.mkv", 2, 2, 12, 16))
    np.testing.assert_allclose(clip[0, 6, 3], [200, 40, 40], atol=3)
    np.testing.assert_allclose(clip[0, 6, 12], [40, 200, 40], atol=3)


def test_a_matrix_that_is_not_converted_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=2)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace = 14
        frame = av.VideoFrame(16, 16, "yuv444p")
        frame.colorspace, frame.pts = 14, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"a\.mkv cannot be used: .* matrix ICtCp"):
        next(decode_clips(tmp_path / "a.mkv", 1, 2, 16, 16))
