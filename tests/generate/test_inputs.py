"""Files of the user become arrays that fit the run, or an error says which files would."""

import dataclasses
import pathlib

import numpy as np
import pytest
import stand_in
from PIL import Image

from stunet.data.media import to_uint8
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.generate import inputs

DATA = ClipSpec(frames=4, height=8, width=6, channels=1, fps=10.0)
CASES = pathlib.Path(__file__).parent / "cases"
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 8, 6), np.uint8)


def test_a_video_of_the_run_s_size_and_rate_frame_by_frame(tmp_path):
    stand_in.write_gif(tmp_path / "v.gif", FRAMES)
    clip = inputs.read_clip(tmp_path / "v.gif", DATA)
    np.testing.assert_array_equal(to_uint8(clip)[..., 0], FRAMES[:4])


def test_a_video_that_is_too_short(tmp_path):
    stand_in.write_gif(tmp_path / "v.gif", FRAMES[:3])
    with pytest.raises(UserError, match=r"v.gif has 3 frames at 10 a second, .* run's clips 4"):
        inputs.read_clip(tmp_path / "v.gif", DATA)


def test_a_mask_is_white_where_to_paint(tmp_path):
    white = np.random.default_rng(1).random(FRAMES.shape) < 0.5
    stand_in.write_gif(tmp_path / "v.gif", FRAMES)
    stand_in.write_gif(tmp_path / "m.gif", np.where(white, 255, 0).astype(np.uint8))
    mask = inputs.read_mask(tmp_path / "m.gif", tmp_path / "v.gif", DATA)
    np.testing.assert_array_equal(mask, white[:4])


def test_a_picture_is_a_mask_for_all_frames(tmp_path):
    white = np.random.default_rng(1).random((8, 6)) < 0.5
    Image.fromarray(np.where(white, 128, 127).astype(np.uint8)).save(tmp_path / "m.png")
    for clip in (DATA, dataclasses.replace(DATA, channels=3)):
        # The video is not looked at: the picture has the size of the run's clips.
        mask = inputs.read_mask(tmp_path / "m.png", tmp_path / "v.gif", clip)
        np.testing.assert_array_equal(mask, white)
    Image.fromarray(np.full((8, 6), 127, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"nothing in the mask .*m\.png is white"):
        inputs.read_region(tmp_path / "m.png", DATA)
    with pytest.raises(UserError, match=r"m\.png is 6 pixels wide and 8 high; the run makes clips"):
        inputs.read_region(tmp_path / "m.png", dataclasses.replace(DATA, height=6))


@pytest.mark.parametrize(
    ("frames", "fps", "sentence"),
    [
        (
            np.full((4, 8, 6), 255, np.uint8),
            10,
            r"shows 8x6 pixels for 0\.40 s, and .*v.gif 8x6 pixels for 0\.50 s",
        ),
        (np.full((5, 16, 12), 255, np.uint8), 10, r"shows 16x12 pixels for .*v.gif 8x6 pixels"),
        (np.full((5, 8, 6), 255, np.uint8), 5, r"8x6 pixels for 1\.00 s, .* for 0\.50 s"),
        (np.full((5, 8, 6), 127, np.uint8), 10, "nothing in the mask .*m.gif is white"),
    ],
)
def test_masks_of_another_video(tmp_path, frames, fps, sentence):
    # All frames differ: a GIF would store equal neighbours as one.
    frames[:, 0, 0] = np.arange(len(frames))
    stand_in.write_gif(tmp_path / "v.gif", FRAMES)
    stand_in.write_gif(tmp_path / "m.gif", frames, fps)
    with pytest.raises(UserError, match=sentence):
        inputs.read_mask(tmp_path / "m.gif", tmp_path / "v.gif", DATA)


def test_a_gif_that_stores_equal_frames_once_is_a_mask(tmp_path):
    stand_in.write_gif(tmp_path / "v.gif", FRAMES)
    Image.fromarray(np.full((8, 6), 255, np.uint8)).save(tmp_path / "m.gif", duration=500)
    assert inputs.read_mask(tmp_path / "m.gif", tmp_path / "v.gif", DATA).all()


UPRIGHT = ClipSpec(frames=8, height=64, width=48, channels=1, fps=8.0)


def test_a_mask_fits_a_video_as_players_show_it():
    """`rot90.mp4` is stored lying down: 48 rows and 64 columns."""
    video = CASES / "rot90.mp4"
    white = inputs.read_mask(CASES / "mask_upright.mp4", video, UPRIGHT)
    assert 0 < white.mean() < 1
    with pytest.raises(UserError, match=r"mask\.mp4 shows 48x64 pixels .*rot90\.mp4 64x48 pixels"):
        inputs.read_mask(CASES / "mask.mp4", video, UPRIGHT)


def test_rates_that_differ_by_rounding_fit():
    """The video has 24000/1001 frames per second, the mask 23.976."""
    clip = ClipSpec(frames=32, height=48, width=64, channels=1, fps=24000 / 1001)
    assert inputs.read_mask(CASES / "m24.mp4", CASES / "v24.mp4", clip).any()


def test_a_video_with_fewer_pictures_than_the_run_asks_for_is_told(tmp_path, capsys):
    stand_in.write_gif(tmp_path / "v.gif", FRAMES)
    inputs.read_clip(tmp_path / "v.gif", DATA)
    assert not capsys.readouterr().err
    inputs.read_clip(tmp_path / "v.gif", dataclasses.replace(DATA, fps=20.0))
    assert "v.gif has fewer pictures than the clips: 2 of 4 frames" in capsys.readouterr().err


def test_a_box():
    box = inputs.read_box("1,2,3,4", DATA)
    assert box.sum() == 3 * 4
    assert box[1:4, 2:6].all()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2,3", "top,left,height,width in pixels"),
        ("a,b,c,d", "top,left,height,width in pixels"),
        ("1,2,3,5", "no rectangle inside the run's clips, 8 high and 6 wide"),
        ("-1,2,3,3", "no rectangle"),
        ("1,2,0,3", "no rectangle"),
    ],
)
def test_boxes_that_are_none(text, sentence):
    with pytest.raises(UserError, match=sentence):
        inputs.read_box(text, DATA)
