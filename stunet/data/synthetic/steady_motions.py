"""Draws objects that follow a closed path at constant speed.

- `glide`: one object moves along a row or column of a torus.
- `cross`: two objects glide along the same row or column in opposite directions.
- `bounce`: one object moves back and forth between two walls.
- `rotate`: an arm, which is a bar that begins at the centre of the canvas, turns about the centre.

The phase of an object is the share of its path that the object has covered, 0..1. From one keyframe
to the next, `stride` frames later, the phase grows by stride / period. Steps that differ by whole
periods look the same. Keyframes therefore cannot tell forwards from backwards motion if the period
is exactly twice the stride, or if periods vary (`spread`) and some are shorter than twice the
stride. On a torus, the period is shorter than twice the stride if an object moves more than half
the canvas between two keyframes.
"""

import dataclasses
from typing import ClassVar

import numpy as np

from stunet.data.synthetic import movers
from stunet.data.synthetic.drawing import SHAPES
from stunet.data.synthetic.movers import DIRECTIONS, Mover, Placed
from stunet.data.synthetic.stage import Stage

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
# Sign of the angle from the x axis towards the y axis. Since rows count downwards, positive angles
# are clockwise.
TURNS = {"clockwise": 1, "anticlockwise": -1}
# Axis (0: y, 1: x) of each direction of bouncing.
BOUNCES = {"left and right": 1, "up and down": 0}

# Random words that one object needs.
_WORDS = 5


@dataclasses.dataclass(frozen=True)
class Bouncer(Mover):
    """Describes an object that moves back and forth. Its direction is a key of `BOUNCES`."""

    verb: ClassVar[str] = "bouncing"


@dataclasses.dataclass(frozen=True)
class Turner(Mover):
    """Describes an arm that turns about the centre. Its direction is a key of `TURNS`."""

    verb: ClassVar[str] = "turning"


def draw_glide(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one object that glides."""
    shape, direction, phase, across, pace = words[:_WORDS]
    direction = movers.pick_direction(stage, direction)
    axis = DIRECTIONS[direction][0]
    return (
        Mover(
            movers.pick_shape(shape),
            direction,
            across=movers.pick_across(stage, axis, across),
            **movers.timing(stage, axis, pace, phase),
        ),
    )


def draw_cross(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws two objects that glide along one line in opposite directions."""
    (first,) = draw_glide(stage, words, frames)
    # The second object moves along the same line, so that the two meet.
    shape, _, phase, _, pace = words[_WORDS : 2 * _WORDS]
    second = Mover(
        movers.pick([shape for shape in SHAPES if shape != first.shape], shape),
        OPPOSITE[first.direction],
        across=first.across,
        **movers.timing(stage, DIRECTIONS[first.direction][0], pace, phase),
    )
    return first, second


def draw_bounce(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one object that moves back and forth between two walls."""
    shape, direction, phase, across, pace = words[:_WORDS]
    direction = movers.pick([d for d in BOUNCES if BOUNCES[d] in stage.axes], direction)
    axis = BOUNCES[direction]
    return (
        Bouncer(
            movers.pick_shape(shape),
            direction,
            across=movers.pick_across(stage, axis, across),
            **movers.timing(stage, axis, pace, phase),
        ),
    )


def draw_rotate(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws an arm that turns about the centre."""
    _, direction, phase, _, pace = words[:_WORDS]
    direction = movers.pick(TURNS, direction)
    return (Turner("arm", direction, across=0.0, **movers.timing(stage, 1, pace, phase)),)


def place_glide(stage: Stage, mover: Mover, phase: np.ndarray) -> Placed:
    """Places an object that moves around a torus."""
    axis, sign = DIRECTIONS[mover.direction]
    extent = stage.extent(axis)
    return _along(mover, axis, sign * phase * extent % extent, np.full(len(phase), sign))


def place_bounce(stage: Stage, mover: Mover, phase: np.ndarray) -> Placed:
    """Places an object between two walls."""
    axis = BOUNCES[mover.direction]
    largest = stage.walls(axis)[1]
    forth = 1 - 2 * (phase % 1)  # 1 at the first wall, 0 at the second, -1 back at the first
    return _along(mover, axis, largest - stage.room(axis) * np.abs(forth), np.sign(forth))


def place_rotate(stage: Stage, mover: Mover, phase: np.ndarray) -> Placed:
    """Places the middle of an arm, which moves half as fast as its end."""
    sign = TURNS[mover.direction]
    angle = sign * 2 * np.pi * phase
    towards = np.stack([np.sin(angle), np.cos(angle)], -1)
    onwards = sign * np.stack([np.cos(angle), -np.sin(angle)], -1)
    return np.array(stage.centre) + towards * stage.arm / 2, onwards * mover.speed / 2


def _along(mover: Mover, axis: int, position: np.ndarray, sign: np.ndarray) -> Placed:
    positions = np.full((len(position), 2), float(mover.across))
    positions[:, axis] = position
    velocities = np.zeros((len(position), 2))
    velocities[:, axis] = sign * mover.speed
    return positions, velocities
