"""Pictures of handwritten digits, from scikit-learn or from a file.

scikit-learn ships 1,797 images of 8x8 pixels, so nothing is downloaded. A file may hold larger
ones. `experiments/fetch_handwriting.py` makes a file of 5,000 images of 28x28 pixels from MNIST.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from stunet.errors import UserError

# Height and width of scikit-learn's images in pixels.
NATIVE_SIZE = 8
_HELD_OUT_EVERY = 10
# A file has at least this many images of each digit, so that both splits have some.
_LEAST = 2
# A contour becomes this many times as steep before it is shrunk to a digit's size.
_SHARPEN = 3.0
# Pixels of background that are kept around each digit of a file.
_MARGIN = 1


class Handwriting(NamedTuple):
    """Images of handwritten digits.

    Attributes:
        images: brightness, 0 (background) to 255.
        labels: value of each digit, 0..9.
    """

    images: UInt8[np.ndarray, "n s s"]
    labels: Int[np.ndarray, " n"]


@functools.lru_cache(maxsize=4)
def load(path: str = "") -> Handwriting:
    """Loads the images of a file, or those of scikit-learn if `path` is empty.

    Args:
        path: `.npz` file with `images` uint8 [n, s, s] and `labels` [n], whole numbers 0..9.

    Raises:
        UserError: there is no such file, or it does not hold images of all ten digits.
    """
    return _from_file(Path(path)) if path else _from_scikit_learn()


@functools.lru_cache(maxsize=16_384)
def glyph(path: str, image: int, size: int) -> UInt8[np.ndarray, "size size"]:
    """Returns a digit's picture in a given size.

    Images of a file are cut to the digit, enlarged until their contours are smooth and sharp, and
    then shrunk by averaging. A digit therefore has the same shape in every size, and a large one
    has sharp contours. Images of scikit-learn are enlarged by cubic interpolation.

    Args:
        path: see `load`.
        image: number of the image.
        size: height and width in pixels.
    """
    if not path:
        return _smooth_images(size)[image]
    contour = _contour(path, image)
    shares = _overlaps(len(contour), size)
    return np.round(shares @ contour @ shares.T).astype(np.uint8)


@functools.cache
def split_images(path: str, split: str, styles: int) -> Int[np.ndarray, " m"]:
    """Returns the numbers of the images that a split uses.

    Every tenth image of each digit is held out for "val". If `styles` is not 0, only the first
    `styles` images of each digit are used.

    Args:
        path: see `load`.
        split: "train" or "val".
        styles: number of images of each digit; 0 for all.
    """
    labels = load(path).labels
    chosen = []
    for digit in range(10):
        images = np.flatnonzero(labels == digit)
        held_out = np.arange(len(images)) % _HELD_OUT_EVERY == 0
        candidates = images[held_out if split == "val" else ~held_out]
        chosen.append(candidates[: styles or None])
    return np.sort(np.concatenate(chosen))


def _from_scikit_learn() -> Handwriting:
    # Importing scikit-learn takes a second, which other sources should not cost.
    from sklearn.datasets import load_digits

    data = load_digits()
    return Handwriting(np.round(data.images * (255 / 16)).astype(np.uint8), data.target)


def _from_file(path: Path) -> Handwriting:
    try:
        with np.load(path) as stored:
            images, labels = stored["images"], stored["labels"]
    except FileNotFoundError as error:
        raise UserError(
            f"data.path: there is no file {path}; `python experiments/fetch_handwriting.py {path}` "
            "makes one"
        ) from error
    except Exception as error:  # NumPy and zipfile raise all kinds.
        raise UserError(
            f"data.path: {path} is no file of handwriting ({error}); it must be a .npz file with "
            "the arrays 'images' and 'labels'"
        ) from error
    is_square = images.ndim == 3 and images.shape[1] == images.shape[2] >= NATIVE_SIZE
    if images.dtype != np.uint8 or not is_square:
        raise UserError(
            f"data.path: 'images' in {path} is {images.dtype} {list(images.shape)}; it must be "
            f"uint8 [n, s, s] with s of at least {NATIVE_SIZE}"
        )
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != images.shape[:1] or not is_whole or not np.isin(labels, range(10)).all():
        raise UserError(
            f"data.path: 'labels' in {path} must be one whole number of 0..9 for each of the "
            f"{len(images)} images"
        )
    counts = np.bincount(labels.astype(np.int64), minlength=10)
    if counts.min() < _LEAST:
        raise UserError(
            f"data.path: {path} has {counts.min()} images of the digit {counts.argmin()}; it must "
            f"have at least {_LEAST} of each"
        )
    return Handwriting(images, labels.astype(np.int64))


@functools.cache
def _smooth_images(size: int) -> UInt8[np.ndarray, "n size size"]:
    """Returns scikit-learn's images, resized to `size` pixels on a side."""
    images = load().images
    if size == NATIVE_SIZE:
        return images
    from scipy import ndimage

    scale = (1, size / NATIVE_SIZE, size / NATIVE_SIZE)
    smooth = ndimage.zoom(
        images.astype(np.float32), scale, order=3, mode="grid-constant", grid_mode=True
    )
    return np.round(np.clip(smooth, 0, 255)).astype(np.uint8)


def _contour(path: str, image: int) -> UInt8[np.ndarray, "s s"]:
    """Returns an image of a file, cut to its digit, four times as large, with sharp contours."""
    from scipy import ndimage

    pixels = _cut(load(path).images[image])
    smooth = ndimage.zoom(
        pixels.astype(np.float32) / 255, 4, order=3, mode="grid-constant", grid_mode=True
    )
    sharp = np.clip((smooth - 0.5) * _SHARPEN + 0.5, 0, 1)
    return np.round(sharp * 255).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _overlaps(pixels: int, size: int) -> Float[np.ndarray, "size pixels"]:
    """Returns which share of each of `size` equal stretches each of `pixels` old pixels covers."""
    ends = np.arange(size + 1) * pixels / size
    old = np.arange(pixels)
    covered = np.minimum(ends[1:, None], old + 1) - np.maximum(ends[:-1, None], old)
    return np.maximum(covered, 0) * size / pixels


def _cut(pixels: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "k k"]:
    """Cuts a square around a digit.

    All digits of MNIST fit a box of 20 x 20 of their 28 x 28 pixels, so the square has 5/7 of the
    image's side and a margin. Larger digits get a larger square.
    """
    side = len(pixels)
    lit = pixels > 0
    if not lit.any():
        return pixels
    ends = [np.flatnonzero(lit.any(axis))[[0, -1]] for axis in (1, 0)]
    extent = max(round(side * 5 / 7), *(int(last - first) + 1 for first, last in ends))
    extent += 2 * _MARGIN
    starts = [int(first + last + 1 - extent) // 2 for first, last in ends]
    padded = np.pad(pixels, side)
    top, left = (start + side for start in starts)
    return padded[top : top + extent, left : left + extent]
