"""Reads what clips of one moving digit show, and compares it with their captions.

The reader does not see captions. It finds the digit by its centre of brightness in each frame
(`tracking.centroids`) and cuts the digit out. A support vector machine that has seen the training
handwriting alone recognises the digit. The median of the digit's steps is its velocity. Colours are
the nearest ones of the palette, and the pattern of the ground is the one that correlates best.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from stunet.data.synthetic import looks
from stunet.data.synthetic.looks import Ground
from stunet.data.synthetic.moving_digits import (
    DIRECTIONS,
    GREY,
    SPEEDS,
    MovingDigit,
    MovingDigits,
)
from stunet.errors import UserError
from stunet.evaluate import tracking
from stunet.evaluate.tracking import Clips

# What a caption of a grey clip says, and the number of ways in which it says that. A guess is right
# once in as many.
WAYS = {"digit": 10, "direction": len(DIRECTIONS), "speed": len(SPEEDS)}
ALL = "all three"
CHANCE = {part: 1 / ways for part, ways in WAYS.items()} | {ALL: 1 / np.prod([*WAYS.values()])}
# What the captions of clips in colour say in addition.
COLOURS = ("colour", "ground", "pattern")
# Looks whose clips can be read: white digits on black, and bright digits on dark grounds.
READABLE = (GREY, "colours")

# A digit that is slower than this, in pixels per frame times the source's speed factor, stands
# still.
_STANDS_STILL = 0.1
# Pixels around the digit, which blur and half pixels widen.
_MARGIN = 1
# Clips to learn digits from, and frames in each: about two of each of scikit-learn's images.
_TRAINING_CLIPS, _TRAINING_FRAMES = 3000, 2
# The largest colour value of a ground, and that from which on a pixel is all digit.
_DARK, _BRIGHT = 0.45, 0.85
# A ground has a pattern if its brightness varies by more than this share of its mean.
_PATTERNED = 0.11


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Says how clips of one moving digit are drawn.

    Attributes:
        height: rows of a frame.
        width: columns of a frame.
        digit_size: height and width of the digit in pixels.
        speed_factor: see `MovingDigit`.
        path: file of handwriting.
        look: look of the clips, one of `READABLE`.
        trail: opacity of the trail behind the digit.
    """

    height: int
    width: int
    digit_size: int
    speed_factor: float
    path: str
    look: str
    trail: float = 0.0

    @classmethod
    def of(cls, source: Any) -> "Drawing | None":
        """Returns how a source draws its clips; None if such clips cannot be read."""
        readable = isinstance(source, MovingDigits) and source.num_digits == 1
        if not readable or source.look not in READABLE:
            return None
        return cls(**{field.name: getattr(source, field.name) for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds what the captions of n clips say.

    Attributes:
        drawing: how clips with such captions are drawn.
        digits: the digit of each clip.
        grounds: the ground of each clip; None for black.
    """

    drawing: Drawing
    digits: tuple[MovingDigit, ...]
    grounds: tuple[Ground | None, ...]


@dataclasses.dataclass(frozen=True)
class Reading:
    """Holds what was read off n clips.

    Attributes:
        digit: digit of each clip, 0..9, `[n]`.
        direction: key of `DIRECTIONS` for each clip, or "" where nothing moves; empty for pictures.
        speed: key of `SPEEDS` for each clip; empty for pictures.
        colour: key of `looks.SHAPE_COLOURS` for each clip; empty for grey clips.
        ground: key of `looks.GROUND_COLOURS` for each clip; empty for grey clips.
        pattern: key of `looks.PATTERNS` for each clip; empty for grey clips.
    """

    digit: np.ndarray
    direction: Sequence[str]
    speed: Sequence[str]
    colour: Sequence[str] = ()
    ground: Sequence[str] = ()
    pattern: Sequence[str] = ()

    def agrees(self, digits: Sequence[MovingDigit]) -> dict[str, Bool[np.ndarray, " n"]]:
        """Tells whether each clip moves the digit that its caption says, as it says.

        Args:
            digits: what the caption of each clip says.

        Returns:
            Hits by part of the caption (keys of `WAYS`), and in all of them (`ALL`). Parts that say
            how a digit moves are left out for pictures.
        """
        parts = [name for name in WAYS if len(getattr(self, name))]
        hits = {name: self._hits(name, [getattr(d, name) for d in digits]) for name in parts}
        return hits | {ALL: np.all([*hits.values()], axis=0)}

    def agrees_in_colour(self, asked: Asked) -> dict[str, Bool[np.ndarray, " n"]]:
        """Tells the same of the colours and the ground, by the names in `COLOURS`."""
        said = {
            "colour": [digit.colour for digit in asked.digits],
            "ground": [ground.colour for ground in asked.grounds],
            "pattern": [ground.pattern for ground in asked.grounds],
        }
        return {name: self._hits(name, values) for name, values in said.items()}

    def _hits(self, name: str, said: Sequence[Any]) -> Bool[np.ndarray, " n"]:
        return np.array([a == b for a, b in zip(said, getattr(self, name), strict=True)])


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads clips that are drawn in one way.

    Attributes:
        drawing: how such clips are drawn.
        classify: maps pictures of digits, one in each row, to a score for each digit.
    """

    drawing: Drawing
    classify: Callable[[np.ndarray], np.ndarray]

    def read(self, clips: Clips) -> Reading:
        """Returns what clips in -1..1, of the drawing's size, show."""
        shown = light(clips, self.drawing.look)
        positions = tracking.centroids(shown)
        crops = cut_out(shown, positions, self.drawing.digit_size)
        scores = self.classify(crops.reshape(-1, crops[0, 0].size))
        # A digit that changes on the way counts as what most of its frames show.
        digit = scores.reshape(*crops.shape[:2], -1).sum(1).argmax(-1)
        way, speed = self._motion(positions) if clips.shape[1] > 1 else ((), ())
        if self.drawing.look == GREY:
            return Reading(digit, way, speed)
        colours = [_colours(clip, mask) for clip, mask in zip(clips, shown[..., 0], strict=True)]
        return Reading(digit, way, speed, *zip(*colours, strict=True))

    def _motion(self, positions: Float[np.ndarray, "n t 2"]) -> tuple[list[str], list[str]]:
        """Returns the direction and the speed of each clip's digit."""
        drawing = self.drawing
        extent, factor = np.array([drawing.height, drawing.width]), drawing.speed_factor
        steps = (np.diff(positions, axis=1) + extent / 2) % extent - extent / 2
        velocities = np.median(steps, axis=1)
        way = [_direction(velocity, factor) for velocity in velocities]
        return way, [_speed(np.abs(velocity).max(), factor) for velocity in velocities]


def light(clips: Clips, look: str) -> Float[np.ndarray, "n t h w 1"]:
    """Returns where the digit is: 1 for a pixel that is all digit, and -1 for one that is none.

    Args:
        clips: clips in -1..1.
        look: look of the clips, one of `READABLE`.
    """
    if look == GREY:
        return 2 * tracking.brightness(clips)[..., None] - 1
    value = (clips.max(axis=-1, keepdims=True) + 1) / 2
    return 2 * np.clip((value - _DARK) / (_BRIGHT - _DARK), 0, 1) - 1


def train_reader(held_out: Any) -> Reader:
    """Learns digits from all of the training handwriting, in clips like those of `held_out`.

    Args:
        held_out: source whose clips are to be read.

    Raises:
        UserError: `held_out` does not draw clips of one moving digit.
    """
    drawing = Drawing.of(held_out)
    if drawing is None:
        raise UserError(
            "only clips of a single moving digit can be read: give a run whose data.source is "
            "'moving_digits', with a data.num_digits and a data.stride of 1, and a data.look of "
            + " or ".join(map(repr, READABLE))
        )
    return reader_of(drawing)


@functools.lru_cache(maxsize=4)
def reader_of(drawing: Drawing) -> Reader:
    """Learns digits from all of the training handwriting, in clips that are drawn in this way."""
    # The import takes a second, so it waits until it is needed.
    from sklearn.svm import SVC

    colours = {} if drawing.look == GREY else {"channels": 3}
    training = MovingDigits("train", _TRAINING_FRAMES, **dataclasses.asdict(drawing), **colours)
    count = range(_TRAINING_CLIPS)
    clips = np.stack([training[i]["video"] for i in count]).astype(np.float32) / 127.5 - 1
    labels = [training.truth(i)[0].digit for i in count]
    shown = light(clips, drawing.look)
    crops = cut_out(shown, tracking.centroids(shown), drawing.digit_size)
    machine = SVC(C=10, gamma="scale", decision_function_shape="ovr")
    machine.fit(crops.reshape(-1, crops[0, 0].size), np.repeat(labels, _TRAINING_FRAMES))
    return Reader(drawing, machine.decision_function)


def measure(clips: Clips, asked: Asked) -> dict[str, Float[np.ndarray, " n"]]:
    """Returns, for each part of the captions, 1 for clips that show it and 0 for the others."""
    reading = reader_of(asked.drawing).read(clips)
    hits = reading.agrees(asked.digits)
    del hits[ALL]
    if asked.drawing.look != GREY:
        hits |= reading.agrees_in_colour(asked)
    hits["caption"] = np.all([*hits.values()], axis=0)
    return {f"right_{name}": found.astype(np.float64) for name, found in hits.items()}


def cut_out(
    clips: Clips, centres: Float[np.ndarray, "n t 2"], size: int
) -> Float[np.ndarray, "n t k k"]:
    """Cuts the brightness, 0..1, around a point out of each frame, at sub-pixel precision.

    Frames are tori: what leaves at one edge comes back at the other.

    Args:
        clips: clips in -1..1.
        centres: point (y, x) of each frame.
        size: width and height of the cut in pixels, without a margin on each side.
    """
    bright = tracking.brightness(clips)
    extent = min(size + 2 * _MARGIN, *bright.shape[2:])
    reach = np.arange(extent) - (extent - 1) / 2
    n, t, y, x = np.broadcast_arrays(
        np.arange(len(bright))[:, None, None, None],
        np.arange(bright.shape[1])[:, None, None],
        centres[..., 0, None, None] + reach[:, None],
        centres[..., 1, None, None] + reach,
    )
    return ndimage.map_coordinates(bright, np.stack([n, t, y, x]), order=1, mode="grid-wrap")


def balanced(source: MovingDigits, num: int) -> list[int]:
    """Chooses clips of a source that take turns among all digits, directions and speeds.

    Each round has one clip of each combination, so that the first clips are nearly balanced, too. A
    combination of which the source has no more clips is left out.

    Args:
        source: source of clips of one moving digit.
        num: number of clips.

    Returns:
        Indices of the clips in the source.

    Raises:
        UserError: the source has fewer clips.
    """
    found: dict[tuple, list[int]] = {}
    for i in range(len(source)):
        (digit,) = source.truth(i)
        found.setdefault((digit.digit, digit.direction, digit.speed), []).append(i)
    directions = tuple(DIRECTIONS)
    order = [
        (digit, directions[(digit + turn) % len(directions)], speed)
        for speed in SPEEDS
        for turn in range(len(directions))
        for digit in range(10)
    ]
    if num > len(source):
        raise UserError(f"there are only {len(source)} held-out clips; ask for fewer than {num}")
    rounds = itertools.zip_longest(*(found.get(key, []) for key in order))
    taken = (clip for again in rounds for clip in again if clip is not None)
    return list(itertools.islice(taken, num))


def _direction(velocity: np.ndarray, speed_factor: float) -> str:
    if np.abs(velocity).max() < _STANDS_STILL * speed_factor:
        return ""
    return max(DIRECTIONS, key=lambda name: np.dot(DIRECTIONS[name], velocity))


def _speed(speed: float, speed_factor: float) -> str:
    """Returns the key of `SPEEDS` whose ratio to the speed is nearest to 1."""
    ratio = np.log(max(speed, 1e-6) / speed_factor)
    return min(SPEEDS, key=lambda name: abs(np.log(SPEEDS[name]) - ratio))


def _colours(
    clip: Float[np.ndarray, "t h w c"], shown: Float[np.ndarray, "t h w"]
) -> tuple[str, str, str]:
    """Returns the colour of a clip's digit, that of its ground, and the ground's pattern.

    Args:
        clip: the clip, in -1..1.
        shown: where the digit is, as `light` returns it.
    """
    rgb = (clip + 1) / 2
    weight = np.maximum(shown, 0)[..., None]
    shape = (rgb * weight).sum((0, 1, 2)) / max(weight.sum(), 1e-6)
    # The ground stands still: the mean over the frames in which the digit does not hide it.
    is_free = (shown <= -0.9)[..., None]
    behind = (rgb * is_free).sum(0) / np.maximum(is_free.sum(0), 1)
    seen = is_free.any(0)[..., 0]
    if not seen.any():
        return _nearest(shape, looks.SHAPE_COLOURS), "", ""
    mean = behind[seen].mean(0)
    ground = _nearest(mean, looks.GROUND_COLOURS)
    tone = np.where(seen, behind.mean(-1) / max(behind[seen].mean(), 1e-6) - 1, 0)
    return _nearest(shape, looks.SHAPE_COLOURS), ground, _pattern(tone)


def _nearest(colour: np.ndarray, table: dict[str, tuple[float, float, float]]) -> str:
    return min(table, key=lambda name: np.linalg.norm(np.array(table[name]) - colour))


def _pattern(tone: Float[np.ndarray, "h w"]) -> str:
    """Returns the pattern that correlates best with the tone, wherever its origin is.

    Args:
        tone: brightness relative to the mean, minus 1; 0 where nothing is known.
    """
    # Noise of single pixels must not count as a pattern.
    smooth = ndimage.uniform_filter(tone, 3, mode="wrap")
    if smooth.std() < _PATTERNED:
        return "plain"
    return max(
        (name for name in looks.PATTERNS if name != "plain"),
        key=lambda name: _best_match(smooth, name),
    )


def _best_match(tone: np.ndarray, pattern: str) -> float:
    """Returns the largest correlation of a tone with a pattern, over all places of the pattern."""
    template = looks.pattern(Ground("grey", pattern), *tone.shape)
    template = ndimage.uniform_filter(template, 3, mode="wrap")
    template = (template - template.mean()) / max(template.std(), 1e-6)
    # Moving the pattern around the frame is a circular correlation.
    moved = np.fft.ifft2(np.fft.fft2(tone) * np.conj(np.fft.fft2(template))).real
    return float(moved.max())
