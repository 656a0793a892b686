"""Draws clips of handwritten digits that move over a black canvas, with true captions.

The digits are the 1,797 8x8 images of scikit-learn's `load_digits`, so nothing is downloaded. Each
digit moves at constant velocity and wraps around the edges of the canvas (a torus). The caption is
therefore true from the first frame to the last, however long the clip.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stunet.data.spec import EncodeText
from stunet.data.synthetic import endless
from stunet.errors import UserError

# (dy, dx) of one pixel in each direction. Rows count downwards.
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
# Pixels per frame at a speed factor of 1, by the caption's word. Digits start on whole pixels, so
# that then only slow digits are interpolated, in every other frame.
SPEEDS = {"slowly": 0.5, "": 1.0, "fast": 2.0}

_NATIVE_SIZE = 8
_HELD_OUT_EVERY = 10


@dataclasses.dataclass(frozen=True)
class MovingDigit:
    """Describes one digit of a clip and how it moves.

    Attributes:
        digit: value of the digit, 0..9.
        image: number of the digit's picture among scikit-learn's 1,797 images.
        direction: a key of `DIRECTIONS`.
        speed: a key of `SPEEDS`.
        start: (y, x) of the pixel at the digit's top left corner in the first frame.
        speed_factor: factor by which the speed in `SPEEDS` is multiplied.
    """

    digit: int
    image: int
    direction: str
    speed: str
    start: tuple[int, int]
    speed_factor: float | int = 1.0

    @property
    def velocity(self) -> tuple[float, float]:
        """Returns (dy, dx) in pixels per frame."""
        dy, dx = DIRECTIONS[self.direction]
        speed = SPEEDS[self.speed] * self.speed_factor
        return dy * speed, dx * speed


def caption(digits: Sequence[MovingDigit]) -> str:
    """Describes a clip, as in `a 3 moving left, fast, and an 8 moving up`."""
    phrases = []
    for digit in digits:
        adverb = f", {digit.speed}" if digit.speed else ""
        article = "an" if digit.digit == 8 else "a"
        phrases.append(f"{article} {digit.digit} moving {digit.direction}{adverb}")
    return ", and ".join(phrases)


def render(
    digits: Sequence[MovingDigit],
    frames: int,
    height: int,
    width: int,
    digit_size: int = _NATIVE_SIZE,
) -> UInt8[np.ndarray, "t h w"]:
    """Draws a clip of `frames` frames. Where digits overlap, the brighter pixel is shown.

    Returns:
        Grey values, 0 (black) to 255.
    """
    images = _digit_images(digit_size)
    clip = None
    for digit in digits:
        drawn = _render_one(images[digit.image], digit, frames, height, width)
        clip = drawn if clip is None else np.maximum(clip, drawn)
    return np.zeros((frames, height, width), np.uint8) if clip is None else clip


class MovingDigits:
    """Gives random access to clips that are rendered when they are read.

    Clip `i` depends on (seed, split, i) alone.

    Indexing returns an example: `video` uint8 [frames, height, width, channels], `caption` str, and
    with `encode_text` also `text` float32 [l, d] and `text_mask` bool [l].
    """

    def __init__(
        self,
        split: str,
        frames: int,
        height: int,
        width: int,
        channels: int = 1,
        seed: int = 0,
        encode_text: EncodeText | None = None,
        digit_size: int | None = None,
        num_digits: int = 1,
        styles: int = 0,
        length: int | None = None,
        speed_factor: float | int = 1.0,
    ):
        """Checks the arguments. Clips are drawn when they are read.

        Args:
            split: "train" or "val". A tenth of the handwritten images of each class is used for
                "val" alone.
            frames: frames in each clip.
            height: rows of the canvas in pixels.
            width: columns of the canvas in pixels.
            channels: channels of each clip, over which the grey value is repeated.
            seed: seed of the clips, 0 or above. Another seed gives other clips of the same images.
            encode_text: encodes a list of n captions to states [n, l, d] and mask [n, l].
            digit_size: height and width of a digit in pixels. None means 8; larger digits are
                smoothly upscaled.
            num_digits: digits in each clip.
            styles: number of handwritten images of each class to draw from; 0 means all. Fewer
                images are learnt sooner.
            length: clips in the source; None means 1,000,000 for train and 1,000 for val.
            speed_factor: factor for the speeds, which are 0.5, 1 and 2 pixels per frame.

        Raises:
            UserError: the split is unknown, the canvas is smaller than a digit, or a value is out
                of range.
        """
        digit_size = _NATIVE_SIZE if digit_size is None else digit_size
        length = endless.length_of("moving digits", split, length)
        least = {
            "frames": (frames, 1),
            "channels": (channels, 1),
            "seed": (seed, 0),
            "digit_size": (digit_size, _NATIVE_SIZE),
            "num_digits": (num_digits, 1),
            "styles": (styles, 0),
            "length": (length, 1),
        }
        endless.check_least("moving digits", least)
        if not speed_factor > 0:
            raise UserError(f"moving digits need a speed factor above 0, not {speed_factor}")
        if min(height, width) < digit_size:
            raise UserError(
                f"a canvas of {height}x{width} pixels is smaller than a digit of"
                f" {digit_size}x{digit_size}; make height and width at least {digit_size}"
            )
        self.split = split
        self.frames = frames
        self.height = height
        self.width = width
        self.channels = channels
        self.seed = seed
        self.encode_text = encode_text
        self.digit_size = digit_size
        self.num_digits = num_digits
        self.styles = styles
        self.length = length
        self.speed_factor = speed_factor

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        digits = self.truth(i)
        grey = render(digits, self.frames, self.height, self.width, self.digit_size)
        return endless.make_example(grey, caption(digits), self.channels, self.encode_text)

    def truth(self, i: int) -> tuple[MovingDigit, ...]:
        """Returns the digits of clip `i`, in the order of the caption, without drawing the clip.

        Raises:
            IndexError: `i` is not in 0..length-1.
        """
        # Five words place one digit.
        count = 5 * self.num_digits
        words = endless.random_words(self.seed, self.split, i, self.length, count)
        images = _split_images(self.split, self.styles)
        labels = _load_digits()[1]
        digits = []
        for word in range(0, len(words), 5):
            pick, direction, speed, y, x = words[word : word + 5]
            image = int(images[pick % len(images)])
            digits.append(
                MovingDigit(
                    digit=int(labels[image]),
                    image=image,
                    direction=tuple(DIRECTIONS)[direction % len(DIRECTIONS)],
                    speed=tuple(SPEEDS)[speed % len(SPEEDS)],
                    start=(y % self.height, x % self.width),
                    speed_factor=self.speed_factor,
                )
            )
        return tuple(digits)


def _render_one(
    image: np.ndarray, digit: MovingDigit, frames: int, height: int, width: int
) -> np.ndarray:
    """Draws one digit in all frames [t, h, w].

    The digit is drawn in the first frame, which is then shifted around the torus.
    """
    size = len(image)
    y, x = digit.start
    rows = (np.arange(y, y + size) % height)[:, None]
    columns = np.arange(x, x + size) % width
    canvas = np.zeros((height, width), np.uint8)
    canvas[rows, columns] = image
    dy, dx = digit.velocity
    if dy:
        # A vertical motion moves along the columns of the transpose, so one axis suffices below.
        canvas = np.ascontiguousarray(canvas.T)
    shift = np.arange(frames) * (dy or dx)
    whole = np.floor(shift).astype(np.int64)
    fraction = (shift - whole).astype(np.float32)
    extent = canvas.shape[1]
    source = (np.arange(extent) - whole[:, None]) % extent
    clip = canvas[:, source]  # [across, t, along]
    if fraction.any():
        beyond = canvas[:, source - 1]  # Index -1 wraps around the torus.
        weight = fraction[:, None]
        clip = (clip * (1 - weight) + beyond * weight + 0.5).astype(np.uint8)
    return np.ascontiguousarray(clip.transpose(1, 2, 0) if dy else clip.transpose(1, 0, 2))


@functools.cache
def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Loads the digit images, uint8 [1797, 8, 8] in 0..255, and their labels, int [1797]."""
    # Importing scikit-learn takes a second, which other sources should not cost.
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.round(data.images * (255 / 16)).astype(np.uint8), data.target


@functools.cache
def _digit_images(size: int) -> np.ndarray:
    """Returns the digit images, resized to uint8 [1797, size, size]."""
    images = _load_digits()[0]
    if size == _NATIVE_SIZE:
        return images
    from scipy import ndimage

    scale = (1, size / _NATIVE_SIZE, size / _NATIVE_SIZE)
    smooth = ndimage.zoom(
        images.astype(np.float32), scale, order=3, mode="grid-constant", grid_mode=True
    )
    return np.round(np.clip(smooth, 0, 255)).astype(np.uint8)


@functools.cache
def _split_images(split: str, styles: int) -> np.ndarray:
    """Returns the indices of the digit images that a split uses.

    Every tenth image of each class is held out for "val". If `styles` is not 0, only the first
    `styles` images of each class are used.
    """
    labels = _load_digits()[1]
    chosen = []
    for digit in range(10):
        images = np.flatnonzero(labels == digit)
        held_out = np.arange(len(images)) % _HELD_OUT_EVERY == 0
        candidates = images[held_out if split == "val" else ~held_out]
        chosen.append(candidates[: styles or None])
    return np.sort(np.concatenate(chosen))
