"""Draws clips of handwritten digits that move, with true captions.

The digits are the images of `handwriting`. Each digit moves at constant velocity and wraps around
the edges of the canvas (a torus). The caption is therefore true from the first frame to the last,
however long the clip. Digits are white on black, or have colours on a ground with a pattern
(`looks`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stunet.data.spec import EncodeText
from stunet.data.synthetic import endless, handwriting, looks
from stunet.data.synthetic.looks import Ground
from stunet.errors import UserError, choose

# (dy, dx) of one pixel in each direction. Rows count downwards.
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
# Pixels per frame at a speed factor of 1, by the caption's word. Digits start on whole pixels, so
# that then only slow digits are interpolated, in every other frame.
SPEEDS = {"slowly": 0.5, "": 1.0, "fast": 2.0}

GREY = "grey"
# A trail shows the digit in this many frames before the present one, each fainter than the next.
_TRAIL_FRAMES = 4
_TRAIL_FADES = 0.7


@dataclasses.dataclass(frozen=True)
class MovingDigit:
    """Describes one digit of a clip and how it moves.

    Attributes:
        digit: value of the digit, 0..9.
        image: number of the digit's picture among the images of handwriting.
        direction: a key of `DIRECTIONS`.
        speed: a key of `SPEEDS`.
        start: (y, x) of the pixel at the digit's top left corner in the first frame.
        speed_factor: factor by which the speed in `SPEEDS` is multiplied.
        colour: a key of `looks.SHAPE_COLOURS`; "" for a white digit on black.
    """

    digit: int
    image: int
    direction: str
    speed: str
    start: tuple[int, int]
    speed_factor: float | int = 1.0
    colour: str = ""

    @property
    def velocity(self) -> tuple[float, float]:
        """Returns (dy, dx) in pixels per frame."""
        dy, dx = DIRECTIONS[self.direction]
        speed = SPEEDS[self.speed] * self.speed_factor
        return dy * speed, dx * speed


def caption(
    digits: Sequence[MovingDigit], ground: Ground | None = None, *, still: bool = False
) -> str:
    """Describes a clip, as in `a red 3 moving left, fast, and a blue 8 moving up, on grey dots`.

    Args:
        digits: the digits of the clip.
        ground: what is behind the digits; None for black, which is not mentioned.
        still: True for a picture, in which no motion can be seen.
    """
    phrases = [_phrase(digit, still) for digit in digits]
    place = f" on {ground.phrase}" if ground else ""
    # A comma ends a list of adverbs: "moving left, fast, on blue".
    comma = "," if place and not still else ""
    return ", and ".join(phrases) + comma + place


def render(
    digits: Sequence[MovingDigit],
    frames: int,
    height: int,
    width: int,
    digit_size: int = handwriting.NATIVE_SIZE,
    path: str = "",
    since: int = 0,
) -> UInt8[np.ndarray, "t h w"]:
    """Draws white digits on black. Where digits overlap, the brighter pixel is shown.

    Args:
        digits: the digits of the clip.
        frames: frames in the clip.
        height: rows of the canvas in pixels.
        width: columns of the canvas in pixels.
        digit_size: height and width of a digit in pixels.
        path: file of handwriting, as for `handwriting.load`.
        since: number of the first frame that is drawn; the digits are at their `start` in frame 0.

    Returns:
        Grey values, 0 (black) to 255.
    """
    clip = None
    for digit in digits:
        picture = handwriting.glyph(path, digit.image, digit_size)
        drawn = _render_one(picture, digit, range(since, since + frames), height, width)
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
        path: str = "",
        look: str = GREY,
        trail: float | int = 0.0,
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
                smoothly enlarged.
            num_digits: digits in each clip.
            styles: number of handwritten images of each class to draw from; 0 means all. Fewer
                images are learnt sooner.
            length: clips in the source; None means 1,000,000 for train and 1,000 for val.
            speed_factor: factor for the speeds, which are 0.5, 1 and 2 pixels per frame.
            path: file of handwriting, as for `handwriting.load`; "" for scikit-learn's images.
            look: "grey" (white on black), or a key of `looks.LOOKS`.
            trail: opacity of the trail behind a digit in colour, 0..1. With a trail a single frame
                shows the motion, and its caption names it.

        Raises:
            UserError: the split or the look is unknown, the canvas is smaller than a digit, the
                file of handwriting cannot be read, the look needs colours and `channels` is 1, or
                a value is out of range.
        """
        digit_size = handwriting.NATIVE_SIZE if digit_size is None else digit_size
        length = endless.length_of("moving digits", split, length)
        least = {
            "frames": (frames, 1),
            "channels": (channels, 1),
            "seed": (seed, 0),
            "digit_size": (digit_size, handwriting.NATIVE_SIZE),
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
        if look != GREY:
            choose(looks.LOOKS, look, "data.look")
            if channels != 3:
                raise UserError(f"the look {look!r} has colours; set data.channels to 3")
        if trail and look == GREY:
            raise UserError("white digits on black leave no trail; set data.trail to 0")
        if not 0 <= trail <= 1:
            raise UserError(f"the opacity of a trail is 0 to 1, not {trail:g}")
        handwriting.load(path)
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
        self.path = path
        self.look = look
        self.trail = trail

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        digits, ground = self.truth(i), self.ground(i)
        words = caption(digits, ground, still=self.frames == 1 and not self.trail)
        video = self._draw(digits, ground)
        return endless.make_example(video, words, self.channels, self.encode_text)

    def truth(self, i: int) -> tuple[MovingDigit, ...]:
        """Returns the digits of clip `i`, in the order of the caption, without drawing the clip.

        Raises:
            IndexError: `i` is not in 0..length-1.
        """
        words, colours, _ = self._words(i)
        images = handwriting.split_images(self.path, self.split, self.styles)
        labels = handwriting.load(self.path).labels
        digits = []
        for number, colour in enumerate(colours):
            pick, turn, speed, y, x = words[5 * number : 5 * number + 5]
            image = int(images[pick % len(images)])
            direction = _pick(DIRECTIONS, turn)
            rows, columns = self._places(direction)
            digits.append(
                MovingDigit(
                    digit=int(labels[image]),
                    image=image,
                    direction=direction,
                    speed=_pick(SPEEDS, speed),
                    start=(y % rows, x % columns),
                    speed_factor=self.speed_factor,
                    colour=_pick(looks.SHAPE_COLOURS, colour) if self.look != GREY else "",
                )
            )
        return tuple(digits)

    def ground(self, i: int) -> Ground | None:
        """Returns what is behind the digits of clip `i`; None if the look is "grey".

        Raises:
            IndexError: `i` is not in 0..length-1.
        """
        if self.look == GREY:
            return None
        colour, pattern, y, x = self._words(i)[2]
        # The place is a whole number of pixels of the smallest clips, whatever the size.
        place = (y % 64 / 64, x % 64 / 64)
        return Ground(_pick(looks.GROUND_COLOURS, colour), _pick(looks.PATTERNS, pattern), place)

    def _places(self, direction: str) -> tuple[int, int]:
        """Returns how many rows and columns a digit may start at.

        A grey digit starts anywhere. In the other looks, a digit starts anywhere on its way, but
        never lies across the edges beside its way. So most frames show it in one piece.
        """
        rows, columns = self.height, self.width
        if self.look != GREY and DIRECTIONS[direction][0]:
            columns -= self.digit_size - 1
        elif self.look != GREY:
            rows -= self.digit_size - 1
        return rows, columns

    def _words(self, i: int) -> tuple[list[int], list[int], list[int]]:
        """Returns the random words of clip `i`: of places, of digits' colours, and of the ground.

        The first words do not depend on how many follow. So a clip has the same digits in every
        look, which move alike.
        """
        # Five words place one digit, one colours it, and four describe the ground.
        count = 6 * self.num_digits + 4
        words = endless.random_words(self.seed, self.split, i, self.length, count)
        ends = (5 * self.num_digits, 6 * self.num_digits)
        return words[: ends[0]], words[ends[0] : ends[1]], words[ends[1] :]

    def _draw(self, digits: Sequence[MovingDigit], ground: Ground | None) -> np.ndarray:
        """Draws a clip, grey [t, h, w] or in colour [t, h, w, 3]."""
        if ground is None:
            size = (self.frames, self.height, self.width, self.digit_size, self.path)
            return render(digits, *size)
        coverages = [self._cover(digit) for digit in digits]
        return looks.draw(self.look, coverages, [digit.colour for digit in digits], ground)

    def _cover(self, digit: MovingDigit) -> np.ndarray:
        """Returns how much of each pixel a digit and its trail hide, 0..1 [t, h, w]."""
        past = _TRAIL_FRAMES if self.trail else 0
        size = (self.height, self.width, self.digit_size, self.path)
        drawn = render([digit], past + self.frames, *size, -past).astype(np.float32) / 255
        cover, strength = drawn[past:], self.trail
        for ago in range(1, past + 1):
            cover = np.maximum(cover, strength * drawn[past - ago : past - ago + self.frames])
            strength *= _TRAIL_FADES
        return cover


def _phrase(digit: MovingDigit, still: bool) -> str:
    """Describes a digit, as in `a red 3 moving left, fast`."""
    name = f"{digit.colour} {digit.digit}".lstrip()
    article = "an" if name == "8" else "a"
    if still:
        return f"{article} {name}"
    adverb = f", {digit.speed}" if digit.speed else ""
    return f"{article} {name} moving {digit.direction}{adverb}"


def _pick(table: Any, word: int) -> str:
    return tuple(table)[word % len(table)]


def _render_one(
    image: np.ndarray, digit: MovingDigit, frames: range, height: int, width: int
) -> np.ndarray:
    """Draws one digit in some frames [t, h, w].

    The digit is drawn in frame 0, which is then shifted around the torus.
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
    shift = np.array(frames) * (dy or dx)
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
