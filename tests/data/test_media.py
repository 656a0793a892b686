"""Written files play with the right pixels, at the right rate, in the right order."""

import os

import av
import numpy as np
import pytest
from PIL import Image

from stunet.data import media
from stunet.data.media import contact_sheet, to_uint8, write_gif, write_mp4, write_xt, xt_slice
from stunet.prepare.decode import decode_clips


def moving_squares(n=2, frames=16, size=32):
    """Returns clips of smoothly coloured squares that move, as floats in -1..1."""
    t, y, x = np.meshgrid(*[np.arange(s) for s in (frames, size, size)], indexing="ij")
    inside = (np.abs(x - t - 8) < 6) & (np.abs(y - 16) < 6)
    colour = np.stack([x / size, y / size, np.full(x.shape, 0.5)], -1) * 2 - 1
    clip = np.where(inside[..., None], -colour, colour)
    return np.stack([clip] * n).astype(np.float32)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("fps", [8, 16, 24000 / 1001])
def test_an_mp4_keeps_its_rate_and_pixels(tmp_path, fps):
    clips = moving_squares(n=1)
    write_mp4(tmp_path / "a.mp4", clips, fps, upscale=4)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
        assert stream.frames == 16
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
    assert psnr(frames[:, ::4, ::4], to_uint8(clips[0])) > 30
    # `decode_clips` shrinks by averaging.
    clip = next(decode_clips(tmp_path / "a.mp4", 16, fps, 32, 32))
    assert psnr(clip, to_uint8(clips[0])) > 32


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or os.cpu_count() == 1, reason="needs a choice of cores"
)
def test_an_mp4_does_not_depend_on_the_number_of_cores(tmp_path):
    clips, cores = moving_squares(), os.sched_getaffinity(0)
    files = []
    for allowed in ({min(cores)}, cores):
        os.sched_setaffinity(0, allowed)
        try:
            write_mp4(tmp_path / "a.mp4", clips, 8, upscale=4)
        finally:
            os.sched_setaffinity(0, cores)
        files.append((tmp_path / "a.mp4").read_bytes())
    assert files[0] == files[1]


def test_mp4_keeps_saturated_colours_and_pads_odd_sizes(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128]])
    clips = np.broadcast_to(colours[None, :, None, None], (1, 5, 31, 33, 3)).astype(np.uint8)
    write_mp4(tmp_path / "a.mp4", clips, 8, upscale=1, crf=8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert frames.shape == (5, 32, 34, 3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2)), colours, atol=6)


@pytest.mark.parametrize("fps", [8, 15, 16, 24, 30, 50, 60])
def test_gif_lasts_as_long_as_the_clip(tmp_path, fps):
    clips = moving_squares(n=1, frames=17)
    write_gif(tmp_path / "a.gif", clips, fps)
    with Image.open(tmp_path / "a.gif") as image:
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
    assert abs(sum(durations) - 1000 * 17 / fps) <= 10
    assert min(durations) >= 20
    if fps <= 50:
        starts = np.concatenate([[0], np.cumsum(durations)])
        np.testing.assert_allclose(starts, 1000 * np.arange(18) / fps, atol=5.001)


def test_a_gif_shows_the_contact_sheet(tmp_path):
    clips = moving_squares(n=3)
    captions = ["a square moves to the right", "", "the same again, with a very long caption " * 9]
    write_gif(tmp_path / "a.gif", clips, 8, captions)
    sheet = contact_sheet(clips, captions)
    with Image.open(tmp_path / "a.gif") as image:
        image.seek(7)
        assert psnr(np.asarray(image.convert("RGB")), sheet[7]) > 30


def test_contact_sheet_holds_every_clip_unchanged():
    clips = to_uint8(moving_squares(n=5))
    sheet = contact_sheet(clips, upscale=1, columns=3)
    cell, gap = 32, 8
    assert sheet.shape == (16, 2 * cell + 3 * gap, 3 * cell + 4 * gap, 3)
    for i, clip in enumerate(clips):
        y, x = (gap + k * (cell + gap) for k in divmod(i, 3))
        np.testing.assert_array_equal(sheet[:, y : y + cell, x : x + cell], clip)
    np.testing.assert_array_equal(contact_sheet(clips[:1], upscale=1), clips[0])


def test_contact_sheet_accepts_grey_and_floats_beyond_the_range():
    clips = np.array([-3.0, -1, 0, 1, 3], np.float32)[None, :, None, None, None]
    sheet = contact_sheet(clips, upscale=1)
    assert sheet[:, 0, 0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3, [255] * 3]


def test_captions_widen_the_sheet_downwards_only_and_must_match():
    clips = moving_squares(n=2, size=96)
    plain, labelled = contact_sheet(clips), contact_sheet(clips, ["left", "two words " * 20])
    assert plain.shape[2] == labelled.shape[2]
    assert plain.shape[1] < labelled.shape[1]
    assert (labelled[0, plain.shape[1] :] < 128).any()  # Text was drawn.
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        contact_sheet(clips, ["only one"])


@pytest.mark.parametrize("speed", [1, 2, -1])
def test_edge_at_constant_speed_is_a_straight_line(tmp_path, speed):
    t, x = np.arange(12), np.arange(40)
    begin = 4 if speed > 0 else 30
    edge = (x[None] < begin + speed * t[:, None]).astype(np.uint8) * 255
    clip = np.zeros((12, 9, 40, 1), np.uint8)
    clip[:, 6] = edge[..., None]  # Only row 6 moves.
    position = (xt_slice(clip)[..., 0] == 255).sum(axis=1)
    np.testing.assert_array_equal(np.diff(position), speed)
    np.testing.assert_array_equal(xt_slice(clip, 0), 0)
    write_xt(tmp_path / "xt.png", clip[None])
    assert np.asarray(Image.open(tmp_path / "xt.png")).max() == 255


def test_a_clip_on_its_side_gives_the_slice_on_its_side(tmp_path):
    (clip,) = moving_squares(n=1)
    upright, tilted = clip, clip.swapaxes(1, 2)
    assert not media.moves_vertically(upright)
    assert media.moves_vertically(tilted)
    assert media.most_variable_column(tilted) == media.most_variable_row(upright)
    np.testing.assert_array_equal(media.yt_slice(tilted), xt_slice(upright).swapaxes(0, 1))
    for name, one in (("x", upright), ("y", tilted)):
        write_xt(tmp_path / f"{name}.png", one[None])
    x, y = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in "xy")
    # The slices, right of the square frames, mirror each other; the names of the axes stay outside.
    size = 32 * 6
    np.testing.assert_array_equal(x[-size:, -size:], y[-size:, -size:].swapaxes(0, 1))


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_slices_are_read_back_from_their_picture(tmp_path, columns):
    clips = moving_squares(n=3, frames=7)
    clips[1] = clips[1].swapaxes(1, 2)
    write_xt(tmp_path / "xt.png", clips, ["a caption", "", "of " * 30], columns=columns)
    (x, first), (y, second), (_, third) = media.read_slices((tmp_path / "xt.png").read_bytes())
    assert (x, y) == ("x", "y")
    np.testing.assert_array_equal(first, to_uint8(xt_slice(clips[0])))
    np.testing.assert_array_equal(second, to_uint8(media.yt_slice(clips[1])))
    np.testing.assert_array_equal(third, first)
    write_xt(tmp_path / "one.png", clips[:1])
    np.testing.assert_array_equal(
        media.read_slices((tmp_path / "one.png").read_bytes())[0][1], first
    )
    Image.open(tmp_path / "xt.png").convert("L").save(tmp_path / "other.png")
    assert media.read_slices((tmp_path / "other.png").read_bytes()) == []


def test_failed_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("x")))
    with pytest.raises(OSError, match="x"):
        write_gif(tmp_path / "a.gif", moving_squares(), 8)
    assert not list(tmp_path.iterdir())


def test_a_clip_of_one_row_is_enlarged_by_its_width_and_its_slice_shows_all_of_it(tmp_path):
    clip = np.zeros((1, 16, 1, 16, 1), np.uint8)
    assert contact_sheet(clip).shape == (16, 24, 384, 3)
    write_xt(tmp_path / "xt.png", clip)
    with Image.open(tmp_path / "xt.png") as image:
        assert image.width < 2 * 384 + 40
        assert 192 <= image.height < 192 + 40
