"""Describes one object of a clip, and what all motions share to draw objects at random.

Random numbers are words of 64 bits, so that a clip follows from its words alone.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from stunet.data.synthetic.drawing import SHAPES
from stunet.data.synthetic.stage import Stage

# Axis (0: y, 1: x) and sign of each direction.
DIRECTIONS = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}

# How fast an object moves, in words: equal parts of the range of the logarithm of the speed.
PACES = ("very slowly", "slowly", "", "fast", "very fast")

# Positions (y, x) in pixels and velocities in pixels per frame, both [t, 2].
Placed = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mover:
    """Describes one object of a clip and how it moves.

    Attributes:
        shape: a key of `SHAPES`, or "arm".
        direction: direction of the motion in words; each motion has its own.
        speed: speed in pixels per frame; see `Stage.speed`.
        period: period of the motion in frames; see `Stage.period`.
        phase: share of the period that has passed at the first frame, 0..1. At phase 0, an object
            on a torus is at row or column 0, an object that bounces is at the left or upper wall,
            and an arm points right. An object that falls is on the floor. A pendulum is at its
            turning point, to the right. The phase grows by 1 / period in each frame.
        across: position, in pixels, of the row or column along which the object moves.
        pace: random number, 0..1, from which the speed follows: `Stage.factor(pace)`.
    """

    shape: str
    direction: str
    speed: float | int
    period: float | int
    phase: float | int
    across: float | int
    pace: float | int = dataclasses.field(default=0.5, compare=False)

    # What the object does, in words, before the direction.
    verb: ClassVar[str] = "gliding"

    @property
    def action(self) -> str:
        """Returns what the object does, as in "gliding right"."""
        return f"{self.verb} {self.direction}"

    @property
    def pace_bin(self) -> int:
        """Returns the place in `PACES` of the words for the object's speed."""
        return min(int(self.pace * len(PACES)), len(PACES) - 1)

    def phrase(self, with_speed: bool = False) -> str:
        """Describes the object, as in "a disc gliding right, very fast".

        Args:
            with_speed: True says how fast the object moves.
        """
        pace = PACES[self.pace_bin] if with_speed else ""
        article = "an" if self.shape == "arm" else "a"
        return f"{article} {self.shape} {self.action}" + (f", {pace}" if pace else "")


def timing(stage: Stage, axis: int, pace: int, phase: int) -> dict[str, float]:
    """Draws speed, period, phase and pace of an object from two random words."""
    length = stage.path_length(axis)
    speed = length / stage.period if stage.period else stage.speed
    speed *= stage.factor(fraction(pace))
    return {
        "speed": speed,
        "period": length / speed,
        "phase": fraction(phase),
        "pace": fraction(pace),
    }


def pick_direction(stage: Stage, word: int) -> str:
    """Chooses one of `DIRECTIONS` along which objects can move on this canvas."""
    return pick([d for d in DIRECTIONS if DIRECTIONS[d][0] in stage.axes], word)


def pick_shape(word: int) -> str:
    """Chooses one of `SHAPES`."""
    return pick(SHAPES, word)


def pick_across(stage: Stage, axis: int, word: int) -> float:
    """Chooses the position, in pixels, of the row or column along which an object moves.

    The position is a random whole number, at which the object looks sharp. If the canvas has too
    few rows for a choice, the position is the middle of the rows.
    """
    if len(stage.axes) == 1:
        return stage.centre[1 - axis]
    if stage.wraps[1 - axis]:
        return float(word % stage.extent(1 - axis))
    least, largest = math.ceil(stage.walls(1 - axis)[0]), math.floor(stage.walls(1 - axis)[1])
    return float(least + word % (largest - least + 1))


def fraction(word: int) -> float:
    """Maps a random word of 64 bits to 0..1."""
    return word / 2**64


def between(least: float, largest: float, word: int) -> float:
    """Maps a random word of 64 bits to a number from `least` to `largest`."""
    return least + (largest - least) * fraction(word)


def pick(choices, word: int) -> str:
    """Chooses an entry by a random word."""
    return tuple(choices)[word % len(choices)]
