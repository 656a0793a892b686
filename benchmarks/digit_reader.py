"""Reads which digit a clip of one moving digit shows, which way it goes and how fast.

The reader does not see the clip's caption. It finds the digit by its centre of brightness in each
frame (`tracking.centroids`) and cuts the digit out. A support vector machine that has seen the
training handwriting alone recognises the digit. The median of the digit's steps is its velocity.
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

# What a caption says, and the number of ways in which it says that. A guess is right once in as
# many.
WAYS = {"digit": 10, "direction": len(DIRECTIONS), "speed": len(SPEEDS)}
ALL = "all three"
CHANCE = {part: 1 / ways for part, ways in WAYS.items()} | {ALL: 1 / np.prod([*WAYS.values()])}

# A digit that is slower than this, in pixels per frame times the source's speed factor, stands
# still.
_STANDS_STILL = 0.1
# Pixels around the digit, which blur and half pixels widen.
_MARGIN = 1
# Clips to learn digits from, and frames in each: about two of each handwritten image.
_TRAINING_CLIPS, _TRAINING_FRAMES = 3000, 2


@dataclasses.dataclass(frozen=True)
class Reading:
    """What n clips show.

    Attributes:
        digit: digit of each clip, 0..9, `[n]`.
        direction: key of `DIRECTIONS` for each clip, or "" where nothing moves.
        speed: key of `SPEEDS` for each clip.
    """

    digit: np.ndarray
    direction: Sequence[str]
    speed: Sequence[str]

    def agrees(self, digits: Sequence[MovingDigit]) -> dict[str, Bool[np.ndarray, " n"]]:
        """Tells whether each clip shows what its caption says, by part of the caption and in all.

        Args:
            digits: what the caption of each clip says.
        """
        hits = {
            name: np.array(
                [getattr(d, name) == shown for d, shown in zip(digits, read, strict=True)]
            )
            for name, read in vars(self).items()
        }
        return hits | {ALL: np.all([*hits.values()], axis=0)}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads clips like those of a source.

    Attributes:
        source: source of clips of one moving digit.
        classify: maps pictures of digits, one in each row, to a score for each digit.
    """

    source: MovingDigits
    classify: Any

    def read(self, clips: Clips) -> Reading:
        """Returns what clips in -1..1, of the source's size, show."""
        positions = tracking.centroids(clips)
        crops = cut_out(clips, positions, self.source.digit_size)
        scores = self.classify(crops.reshape(-1, crops[0, 0].size))
        # A digit that changes on the way counts as what most of its frames show.
        digit = scores.reshape(*crops.shape[:2], -1).sum(1).argmax(-1)
        stage = scene_of(self.source, (), captions=False, keyframes=False).stage
        velocities = coherence.unroll(positions[:, None], stage).velocity[:, 0]
        way = [_direction(v, self.source.speed_factor) for v in velocities]
        speed = [_speed(np.abs(v).max(), self.source.speed_factor) for v in velocities]
        return Reading(digit, way, speed)


def train_reader(held_out: Any) -> Reader:
    """Learns digits from all of the training handwriting, in clips like those of `held_out`.

    Args:
        held_out: source whose clips are to be read.

    Raises:
        UserError: `held_out` does not draw clips of one moving digit.
    """
    # The import takes a second, so it waits until it is needed.
    from sklearn.svm import SVC

    if not isinstance(held_out, MovingDigits) or held_out.num_digits != 1:
        raise UserError(
            "only clips of a single moving digit can be read: give a run whose data.source is "
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
    """Cuts the brightness, 0..1, around a point out of each frame, at sub-pixel precision.

    Frames are tori: what leaves at one edge comes back at the other.

    Args:
        clips: clips in -1..1.
        centres: point (y, x) of each frame.
        size: width and height of the cut in pixels, without a margin on each side.
    """
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
