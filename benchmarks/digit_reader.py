"""Whether clips of one moving digit show what their captions say: which digit, which way, how fast.

What a clip shows is read off it without its caption. The digit is found by its centre of brightness
in each frame (`tracking.centroids`), cut out around it and recognised by a support vector machine,
which has seen the training handwriting alone; the way it goes is the median of its steps.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from stunet.data.synthetic.moving_digits import DIRECTIONS, SPEEDS, MovingDigit, MovingDigits
from stunet.errors import UserError
from stunet.evaluate import coherence, tracking
from stunet.evaluate.scene import scene_of
from stunet.evaluate.tracking import Clips

# What a caption says, and in how many ways: what a guess gets right is one over that.
WAYS = {"digit": 10, "direction": len(DIRECTIONS), "speed": len(SPEEDS)}
ALL = "all three"
CHANCE = {said: 1 / ways for said, ways in WAYS.items()} | {ALL: 1 / np.prod([*WAYS.values()])}

# Slower than this, in pixels a frame times the source's speed factor, a digit goes nowhere.
_STANDS_STILL = 0.1
# Around the digit, which blur and half pixels widen.
_MARGIN = 1
# To learn digits from: about two of each handwritten image.
_TRAINING_CLIPS, _TRAINING_FRAMES = 3000, 2


@dataclasses.dataclass(frozen=True)
class Reading:
    """What n clips show.

    Attributes:
        digit: 0..9, `[n]`.
        direction: a key of `DIRECTIONS` for each clip, or "" where nothing moves.
        speed: a key of `SPEEDS` for each clip.
    """

    digit: np.ndarray
    direction: Sequence[str]
    speed: Sequence[str]

    def agrees(self, digits: Sequence[MovingDigit]) -> dict[str, Bool[np.ndarray, " n"]]:
        """By what a caption says: whether each clip shows it, and whether it shows all of it."""
        said = {
            name: np.array(
                [getattr(d, name) == shown for d, shown in zip(digits, read, strict=True)]
            )
            for name, read in vars(self).items()
        }
        return said | {ALL: np.all([*said.values()], axis=0)}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Of clips like those of `source`. `classify` gives a score of each class for each row."""

    source: MovingDigits
    classify: Any

    def read(self, clips: Clips) -> Reading:
        """Args: clips, in -1..1, of the source's size."""
        positions = tracking.centroids(clips)
        crops = cut_out(clips, positions, self.source.digit_size)
        scores = self.classify(crops.reshape(-1, crops[0, 0].size))
        # A digit that changes on the way is what it is in most of its frames.
        digit = scores.reshape(*crops.shape[:2], -1).sum(1).argmax(-1)
        stage = scene_of(self.source, (), with_truth=False).stage
        velocities = coherence.unroll(positions[:, None], stage).velocity[:, 0]
        way = [_direction(v, self.source.speed_factor) for v in velocities]
        speed = [_speed(np.abs(v).max(), self.source.speed_factor) for v in velocities]
        return Reading(digit, way, speed)


def train_reader(held_out: Any) -> Reader:
    """Learns digits from the training handwriting, all of it, moving over such clips as
    `held_out` has.

    Raises:
        UserError: `held_out` does not draw clips of one moving digit.
    """
    # Imported late: it takes a second.
    from sklearn.svm import SVC

    if not isinstance(held_out, MovingDigits) or held_out.num_digits != 1:
        raise UserError(
            "what a clip shows is read off single moving digits: give a run whose data.source is "
            "'moving_digits', with a data.num_digits and a data.stride of 1"
        )
    training = MovingDigits(
        "train",
        _TRAINING_FRAMES,
        held_out.height,
        held_out.width,
        digit_size=held_out.digit_size,
        speed_factor=held_out.speed_factor,
    )
    count = range(_TRAINING_CLIPS)
    clips = np.stack([training[i]["video"] for i in count]).astype(np.float32) / 127.5 - 1
    labels = [training.truth(i)[0].digit for i in count]
    crops = cut_out(clips, tracking.centroids(clips), held_out.digit_size)
    machine = SVC(C=10, gamma="scale", decision_function_shape="ovr")
    machine.fit(crops.reshape(-1, crops[0, 0].size), np.repeat(labels, _TRAINING_FRAMES))
    return Reader(held_out, machine.decision_function)


def cut_out(
    clips: Clips, centres: Float[np.ndarray, "n t 2"], size: int
) -> Float[np.ndarray, "n t k k"]:
    """The brightness 0..1 around a centre (y, x) of each frame, at sub-pixel precision, on a torus;
    `size` pixels and a margin."""
    light = tracking.brightness(clips)
    extent = min(size + 2 * _MARGIN, *light.shape[2:])
    reach = np.arange(extent) - (extent - 1) / 2
    n, t, y, x = np.broadcast_arrays(
        np.arange(len(light))[:, None, None, None],
        np.arange(light.shape[1])[:, None, None],
        centres[..., 0, None, None] + reach[:, None],
        centres[..., 1, None, None] + reach,
    )
    return ndimage.map_coordinates(light, np.stack([n, t, y, x]), order=1, mode="grid-wrap")


def balanced(source: MovingDigits, num: int) -> list[int]:
    """Clips of a source, one of each combination of digit, direction and speed after the other, as
    often as it takes; any beginning of them is nearly balanced. A combination of which the source
    has no more clips is passed over.

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
        raise UserError(f"there are {len(source)} held-out clips; ask for no more, not {num}")
    rounds = itertools.zip_longest(*(found.get(key, []) for key in order))
    taken = (clip for again in rounds for clip in again if clip is not None)
    return list(itertools.islice(taken, num))


def _direction(velocity: np.ndarray, speed_factor: float) -> str:
    if np.abs(velocity).max() < _STANDS_STILL * speed_factor:
        return ""
    return max(DIRECTIONS, key=lambda name: np.dot(DIRECTIONS[name], velocity))


def _speed(speed: float, speed_factor: float) -> str:
    """The nearest, by the ratio."""
    ratio = np.log(max(speed, 1e-6) / speed_factor)
    return min(SPEEDS, key=lambda name: abs(np.log(SPEEDS[name]) - ratio))
