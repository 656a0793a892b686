"""Handwriting of a file: its shapes hold in every size, and a file that is wrong is refused."""

import numpy as np
import pytest

from stunet.data.synthetic import handwriting
from stunet.errors import UserError


def strokes(count: int, side: int = 28) -> dict[str, np.ndarray]:
    """`count` images of each digit, which are rectangles of different sizes and places."""
    random = np.random.default_rng(0)
    images = np.zeros((10 * count, side, side), np.uint8)
    for image in images:
        height, width = random.integers(4, 16, 2)
        top, left = random.integers(1, side - 17, 2)
        image[top : top + height, left : left + width] = 255
    return {"images": images, "labels": np.arange(10 * count) % 10}


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "handwriting.npz"
    np.savez(path, **strokes(20))
    return str(path)


def test_a_digit_has_one_shape_in_every_size(file):
    for image in range(20):
        small = handwriting.glyph(file, image, 16)
        large = handwriting.glyph(file, image, 64)
        shrunk = large.astype(float).reshape(16, 4, 16, 4).mean((1, 3))
        np.testing.assert_allclose(small, shrunk, atol=1)
        # Contours are sharp: most pixels of the large picture are black or white.
        assert np.isin(large, (0, 255)).mean() > 0.8


def test_a_digit_is_centred_and_fits_its_square_with_a_margin(file):
    for image in range(20):
        glyph = handwriting.glyph(file, image, 66)
        for axis in (0, 1):
            lit = np.flatnonzero(glyph.max(axis) > 127)
            assert abs(lit[0] + lit[-1] - 65) <= 4
            assert lit[0] > 0
            assert lit[-1] < 65


def test_the_splits_share_no_image_and_hold_all(file):
    train, val = (handwriting.split_images(file, split, 0) for split in ("train", "val"))
    assert sorted([*train, *val]) == [*range(200)]
    assert len(val) == 20
    few = handwriting.split_images(file, "train", 3)
    assert len(few) == 30
    assert set(few) <= set(train)


def changed(**arrays) -> dict[str, np.ndarray]:
    return strokes(3) | arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": strokes(3)["images"]}, "labels"),
        (changed(images=np.zeros((30, 28, 20), np.uint8)), r"\[30, 28, 20\].*uint8 \[n, s, s\]"),
        (changed(images=np.zeros((30, 28, 28))), "float64.*uint8"),
        (changed(labels=np.arange(30)), "whole number of 0..9"),
        (changed(labels=np.arange(29) % 10), "each of the 30 images"),
        (changed(labels=np.zeros(30, int)), "0 images of the digit 1.*at least 2"),
        (changed(labels=np.array([None] * 30)), "Object arrays|pickle"),
    ],
)
def test_a_file_of_other_content_is_refused(tmp_path, arrays, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message):
        handwriting.load(str(path))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match=r"no file .*none.npz; `python experiments/fetch_handwr"):
        handwriting.load(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(UserError, match="no file of handwriting"):
        handwriting.load(str(tmp_path / "text.npz"))
