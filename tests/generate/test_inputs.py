"""Files of the user become arrays that fit the run, or an error says which files would."""

import dataclasses

import numpy as np
import pytest
import stand_in
from PIL import Image

from stunet.data.media import to_uint8
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.generate import inputs

DATA = ClipSpec(frames=4, height=8, width=6, channels=1, fps=10.0)
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 8, 6), np.uint8)


def test_a_picture_pixel_by_pixel(tmp_path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "grey.png")
    picture = inputs.read_picture(tmp_path / "grey.png", DATA)
    np.testing.assert_array_equal(to_uint8(picture)[..., 0], FRAMES[0])
    assert picture.min() >= -1
    assert picture.max() <= 1
    colours = dataclasses.replace(DATA, channels=3)
    np.testing.assert_allclose(
        inputs.read_picture(tmp_path / "grey.png", colours), np.repeat(picture, 3, -1)
    )


def test_pictures_that_do_not_fit(tmp_path):
    Image.fromarray(FRAMES[0].T).save(tmp_path / "turned.png")
    with pytest.raises(UserError, match=r"8 pixels wide and 6 high; .* 6 wide and 8 high"):
        inputs.read_picture(tmp_path / "turned.png", DATA)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png is no picture"):
        inputs.read_picture(tmp_path / "text.png", DATA)
    with pytest.raises(UserError, match=r"cannot read .*none.png \(No such file"):
        inputs.read_picture(tmp_path / "none.png", DATA)


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


@pytest.mark.parametrize(
    ("frames", "fps", "sentence"),
    [
        (np.full((4, 8, 6), 255, np.uint8), 10, "has 4 frames of 8x6 .*v.gif 5 frames of 8x6"),
        (np.full((5, 16, 12), 255, np.uint8), 10, "has 5 frames of 16x12 .*v.gif 5 frames of 8x6"),
        (np.full((5, 8, 6), 255, np.uint8), 5, "8x6 pixels at 5 a second, .* at 10 a second"),
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
