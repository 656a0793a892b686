"""The pixel that is clicked is the pixel that is meant, and the box is drawn around its pixels."""

import numpy as np
import pytest

from stunet.data.spec import ClipSpec
from stunet.demo import drawing
from stunet.demo.forms import box_between
from stunet.errors import UserError
from stunet.generate import inputs

CLIP = ClipSpec(frames=4, height=6, width=10, channels=1, fps=8.0)
PICTURE = np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10, 1)


def test_every_place_of_the_enlarged_picture_is_a_place_of_its_pixel():
    large = drawing.enlarged(PICTURE, CLIP)
    grey = np.rint((PICTURE[..., 0] + 1) * 127.5)
    for y in range(0, large.shape[0], 7):
        for x in range(0, large.shape[1], 7):
            row, column = drawing.clicked((x, y), CLIP)
            assert (large[y, x] == grey[row, column]).all()
    # A click on the edge may be told as one beyond it.
    assert drawing.clicked((large.shape[1], large.shape[0]), CLIP) == (5, 9)


def test_the_box_between_two_clicks_is_outlined():
    plain = drawing.enlarged(PICTURE, CLIP)
    scale = plain.shape[0] // 6
    corners = [drawing.clicked((x * scale, y * scale), CLIP) for x, y in ((2, 1), (7, 4))]
    box = box_between(*corners)
    assert box == "1,2,4,6"
    rows, columns = (drawing.enlarged(PICTURE, CLIP, box) != plain).any(-1).nonzero()
    assert (rows.min(), rows.max()) == (scale, 5 * scale - 1)
    assert (columns.min(), columns.max()) == (2 * scale, 8 * scale - 1)


def test_a_box_outside_the_picture_gets_the_sentence_of_the_command():
    with pytest.raises(UserError, match="no rectangle inside the run's clips, 6 high and 10 wide"):
        drawing.enlarged(PICTURE, CLIP, "4,4,4,4")


def test_the_brush_chooses_the_pixels_that_it_covers(tmp_path):
    height, width = drawing.size(CLIP)
    scale = height // CLIP.height
    layers = [np.zeros((height, width, 4), np.uint8) for _ in range(2)]
    layers[0][scale : 3 * scale, 2 * scale : 5 * scale] = (*drawing._MARK, 255)
    layers[0][: scale // 2, 8 * scale : 9 * scale] = 255  # the upper half of a pixel
    layers[1][5 * scale :, : scale // 8] = 255  # an eighth of one
    chosen = np.zeros((CLIP.height, CLIP.width), bool)
    chosen[1:3, 2:5] = chosen[0, 8] = True
    np.testing.assert_array_equal(drawing.painted(layers, CLIP), chosen)
    assert not drawing.painted([], CLIP).any()
    # The browser may send a drawing in another size.
    large = [layers[0].repeat(2, axis=0).repeat(2, axis=1)]
    np.testing.assert_array_equal(drawing.painted(large, CLIP), chosen)
    drawing.write_mask(chosen, tmp_path / "mask.png")
    np.testing.assert_array_equal(inputs.read_region(tmp_path / "mask.png", CLIP), chosen)
