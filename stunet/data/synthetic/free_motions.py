"""Draws objects whose speed or direction changes, so that their path is no straight line.

- `fall`: one object falls and bounces on the floor without loss. On a canvas of two axes, it also
  drifts sideways at constant speed, over the edges. On one axis, it falls left or right.
- `pendulum`: one object swings about a point above it, or along a line, with damping.
- `wander`: one object follows a random smooth path between the walls. Each coordinate is a sum of
  sine waves of a limited band of frequencies.
- `turn`: one object glides on a torus and changes its direction once, at a random frame in the
  second or third quarter of the clip. No caption says when, nor where it goes then.

Phases count periods, as `Stage.period` says.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from stunet.data.synthetic import movers
from stunet.data.synthetic.movers import DIRECTIONS, Mover, Placed
from stunet.data.synthetic.stage import LEAST_REACH, SLOWEST_WAVE, WAVES, Stage

# An object that falls drifts sideways by a share of the width in each of the stage's periods.
_DRIFT = (0.1, 0.4)
# Share of a pendulum's swing that is left after a period.
_DAMPING = (0.7, 0.9)


@dataclasses.dataclass(frozen=True)
class Faller(Mover):
    """Describes an object that falls.

    The direction is "left" or "right": where the object drifts or, on one axis, where it falls.

    Attributes:
        drop: height in pixels from which the object falls.
        drift: pixels per frame that the object moves to the right, or to the left if below 0.
    """

    drop: float | int = 0.0
    drift: float | int = 0.0

    @property
    def action(self) -> str:
        """Returns what the object does, as in "bouncing on the floor, drifting right"."""
        if self.drift:
            return f"bouncing on the floor, drifting {self.direction}"
        return f"falling {self.direction}"


@dataclasses.dataclass(frozen=True)
class Pendulum(Mover):
    """Describes an object that swings left and right.

    Attributes:
        swing: largest distance in pixels from the place at rest, along the path, without damping.
        damping: share of the swing that is left one period after the first frame.
    """

    verb: ClassVar[str] = "swinging"
    swing: float | int = 0.0
    damping: float | int = 1.0


@dataclasses.dataclass(frozen=True)
class Wanderer(Mover):
    """Describes an object on a random smooth path.

    Attributes:
        waves: for each axis of the stage, (frequency, phase) of each sine wave. The frequency is in
            waves per period; the phase is in waves.
    """

    verb: ClassVar[str] = "wandering"
    waves: tuple[tuple[tuple[float, float], ...], ...] = ()

    @property
    def action(self) -> str:
        """Returns what the object does."""
        return self.verb


@dataclasses.dataclass(frozen=True)
class Swerver(Mover):
    """Describes an object that glides and changes its direction once.

    Attributes:
        turns_at: frame at which the direction changes.
        then: direction after the change, a key of `DIRECTIONS`.
    """

    turns_at: int = 0
    then: str = "right"

    @property
    def action(self) -> str:
        """Returns what the object does. It does not say when and where the object turns."""
        return f"{super().action}, then turning"


def draw_fall(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one object that falls."""
    shape, direction, phase, across, pace, reach, drift = words[:7]
    direction = movers.pick(("left", "right"), direction)
    axis = stage.axes[-1]
    timing = movers.timing(stage, axis, pace, phase)
    reach = movers.between(LEAST_REACH, 1.0, reach)
    drift = movers.between(*_DRIFT, drift) * stage.width / timing["period"]
    # The same gravity for all heights: the period grows with the root of the height.
    timing["period"] *= math.sqrt(reach)
    timing["speed"] *= math.sqrt(reach)
    return (
        Faller(
            movers.pick_shape(shape),
            direction,
            across=movers.pick_across(stage, axis, across),
            drop=reach * stage.room(axis),
            drift=(len(stage.axes) - 1) * DIRECTIONS[direction][1] * drift,
            **timing,
        ),
    )


def draw_pendulum(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one pendulum."""
    shape, _, phase, _, pace, reach, damping = words[:7]
    timing = movers.timing(stage, 1, pace, phase)
    reach = movers.between(LEAST_REACH, 1.0, reach)
    timing["speed"] *= reach
    return (
        Pendulum(
            movers.pick_shape(shape),
            "left and right",
            across=stage.centre[0],
            swing=reach * stage.swing,
            damping=movers.between(*_DAMPING, damping),
            **timing,
        ),
    )


def draw_wander(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one object on a random smooth path."""
    (shape, pace), words = words[:2], iter(words[2:])
    part = (1 - SLOWEST_WAVE) / WAVES
    waves = tuple(
        tuple(
            (SLOWEST_WAVE + part * (k + movers.fraction(next(words))), movers.fraction(next(words)))
            for k in range(WAVES)
        )
        for _ in stage.axes
    )
    timing = movers.timing(stage, 1, pace, 0)
    return (
        Wanderer(
            movers.pick_shape(shape), "anywhere", across=stage.centre[0], waves=waves, **timing
        ),
    )


def draw_turn(stage: Stage, words: list[int], frames: int) -> tuple[Mover, ...]:
    """Draws one object that glides and turns once."""
    shape, direction, phase, across, pace, turns_at, then = words[:7]
    direction = movers.pick_direction(stage, direction)
    axis = DIRECTIONS[direction][0]
    others = [d for d in DIRECTIONS if d != direction and DIRECTIONS[d][0] in stage.axes]
    first, last = math.ceil(frames / 4), max(math.ceil(frames / 4), 3 * frames // 4)
    return (
        Swerver(
            movers.pick_shape(shape),
            direction,
            across=movers.pick_across(stage, axis, across),
            turns_at=first + turns_at % (last - first + 1),
            then=movers.pick(others, then),
            **movers.timing(stage, axis, pace, phase),
        ),
    )


def place_fall(stage: Stage, mover: Faller, phase: np.ndarray) -> Placed:
    """Places an object that falls and bounces on the floor."""
    axis = stage.axes[-1]
    share = phase % 1
    height = mover.drop * 4 * share * (1 - share)
    rise = mover.drop * 4 * (1 - 2 * share) / mover.period
    positions = np.full((len(phase), 2), float(mover.across))
    velocities = np.zeros((len(phase), 2))
    if len(stage.axes) == 2:
        elapsed = (phase - mover.phase) * mover.period
        positions[:, 1] = (mover.across + mover.drift * elapsed) % stage.width
        velocities[:, 1] = mover.drift
    # The floor is the lower wall, or the wall on the left or right that the object falls to.
    down = 1 if len(stage.axes) == 2 else DIRECTIONS[mover.direction][1]
    floor = stage.walls(axis)[(down + 1) // 2]
    positions[:, axis] = floor - down * height
    velocities[:, axis] = -down * rise
    return positions, velocities


def place_pendulum(stage: Stage, mover: Pendulum, phase: np.ndarray) -> Placed:
    """Places a pendulum, whose angle is a damped sine wave, as for a small swing."""
    rate = math.log(mover.damping)
    envelope = mover.swing * np.exp(rate * (phase - mover.phase))
    cos, sin = np.cos(2 * np.pi * phase), np.sin(2 * np.pi * phase)
    along = envelope * cos
    speed = envelope * (rate * cos - 2 * np.pi * sin) / mover.period
    if not stage.rod:
        positions = np.stack([np.full(len(phase), stage.centre[0]), stage.centre[1] + along], -1)
        return positions, np.stack([np.zeros(len(phase)), speed], -1)
    angle = along / stage.rod
    towards = np.stack([np.cos(angle), np.sin(angle)], -1)
    onwards = np.stack([-np.sin(angle), np.cos(angle)], -1)
    return np.array(stage.pivot) + stage.rod * towards, speed[:, None] * onwards


def place_wander(stage: Stage, mover: Wanderer, phase: np.ndarray) -> Placed:
    """Places an object on a random smooth path."""
    positions = np.tile(np.array(stage.centre), (len(phase), 1))
    velocities = np.zeros((len(phase), 2))
    for axis, waves in zip(stage.axes, mover.waves, strict=True):
        frequency, start = (np.array(values)[:, None] for values in zip(*waves, strict=True))
        angle = 2 * np.pi * (frequency * phase + start)
        reach = stage.room(axis) / 2
        positions[:, axis] += reach * np.sin(angle).mean(0)
        slope = 2 * np.pi * frequency / mover.period * np.cos(angle)
        velocities[:, axis] = reach * slope.mean(0)
    return positions, velocities


def place_turn(stage: Stage, mover: Swerver, phase: np.ndarray) -> Placed:
    """Places an object that glides on a torus, and turns once."""
    elapsed = (phase - mover.phase) * mover.period
    axis, sign = DIRECTIONS[mover.direction]
    start = np.full(2, float(mover.across))
    start[axis] = sign * mover.phase * stage.extent(axis)
    before, after = np.zeros((2, 2))
    before[axis] = sign
    after[DIRECTIONS[mover.then][0]] = DIRECTIONS[mover.then][1]
    covered = np.minimum(elapsed, mover.turns_at)[:, None] * before
    covered = covered + np.maximum(elapsed - mover.turns_at, 0)[:, None] * after
    # Rounding may put a frame a little before its time.
    turned = (elapsed > mover.turns_at - 1e-6)[:, None]
    positions = (start + mover.speed * covered) % [stage.height, stage.width]
    return positions, mover.speed * np.where(turned, after, before)
