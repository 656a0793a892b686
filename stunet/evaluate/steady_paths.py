"""Unrolls the paths of objects that move at constant speed, so that each path is a straight line.

The motions are those of `stunet.data.synthetic.steady_motions`. A position is converted to the
distance that the object has moved along its path. The path leads over the edges of a torus, around
the centre, or to and fro between walls.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.stage import Stage
from stunet.evaluate import tracking
from stunet.evaluate.tracking import Positions

# An object slower than this, in pixels per frame, has no period.
STANDS_STILL = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """Holds the distances that objects have moved along their paths.

    The shapes stand for n clips of t frames with o objects each, and d components of a distance.

    Attributes:
        distance: distance of each object at each frame, in pixels. On a torus, the two components
            are the signed distances along y and x. For a rotating arm, the one component is how far
            the arm's end has moved clockwise. For a bouncing object, the first component is the
            length of its path so far, bounces included. The second is the position at right angles
            to the path.
        turn: length of each object's path over a whole period, in pixels.
    """

    distance: Float[np.ndarray, "n o t d"]
    turn: Float[np.ndarray, "n o"]

    @property
    def steps(self) -> Float[np.ndarray, "n o s d"]:
        """Returns how many pixels each object moves from each frame to the next; s is t - 1."""
        return np.diff(self.distance, axis=2)

    @property
    def velocity(self) -> Float[np.ndarray, "n o d"]:
        """Returns the median step over the clip, in pixels per frame."""
        return np.median(self.steps, axis=2)

    @property
    def expected_steps(self) -> Float[np.ndarray, "n o 1 d"]:
        """Returns the step that a steady motion repeats, which is the median step."""
        return self.velocity[:, :, None]

    @property
    def speed(self) -> Float[np.ndarray, "n o"]:
        """Returns the length of the median step, in pixels per frame."""
        return np.linalg.norm(self.velocity, axis=-1)

    @property
    def speeds(self) -> Float[np.ndarray, "n o 1"]:
        """Returns the speeds to compare with the speeds of the data, in pixels per frame."""
        return self.speed[..., None]


def unroll(positions: Positions, stage: Stage) -> Paths:
    """Converts the objects' positions to distances along their paths.

    Neighbouring frames are assumed to be less than half a period of the motion apart.
    """
    return _UNROLL[stage.motion](positions, stage)


def torus_steps(
    positions: Float[np.ndarray, "... t"], extent: float | int
) -> Float[np.ndarray, "... s"]:
    """Returns the shortest steps between positions on a circle of `extent` pixels; s is t - 1."""
    steps = np.diff(positions, axis=-1)
    return (steps + extent / 2) % extent - extent / 2


def _on_torus(positions: Positions, stage: Stage) -> Paths:
    extents = np.array([stage.height, stage.width], float)
    steps = np.diff(positions, axis=2)
    steps = (steps + extents / 2) % extents - extents / 2
    distance = np.concatenate([positions[:, :, :1], steps], 2).cumsum(2)
    main = np.abs(np.median(steps, axis=2)).argmax(-1)
    return Paths(distance, extents[main])


def _around_centre(positions: Positions, stage: Stage) -> Paths:
    angle = np.unwrap(tracking.angles(positions, stage), axis=-1)
    turn = np.full(angle.shape[:2], stage.path_length(1))
    return Paths(angle[..., None] * stage.arm, turn)


def _between_walls(positions: Positions, stage: Stage) -> Paths:
    """Unrolls the path of a bouncing object by mirroring it at the walls.

    A single position does not tell the direction. The function therefore takes each frame's
    direction from the steady motion that fits the clip best.
    """
    distance, turn = np.zeros(positions.shape), np.zeros(positions.shape[:2])
    for i, o in np.ndindex(turn.shape):
        axis = max(stage.axes, key=lambda axis: positions[i, o, :, axis].var())
        least, largest = stage.walls(axis)
        turn[i, o] = stage.path_length(axis)
        height = np.clip((positions[i, o, :, axis] - least) / (largest - least), 0, 1)
        phase, frequency = _unfold(height)
        steps = np.diff(phase) - frequency
        steps -= np.round(steps)
        along = np.concatenate([phase[:1], steps + frequency]).cumsum()
        distance[i, o, :, 0] = along * turn[i, o]
        distance[i, o, :, 1] = positions[i, o, :, 1 - axis]
    return Paths(distance, turn)


def _unfold(height: np.ndarray) -> tuple[np.ndarray, float]:
    """Fits a triangle wave to heights [t].

    Returns the phase of each frame, 0..1, and the frequency of the wave in periods per frame.
    """
    height = height.astype(np.float32)
    frames = np.arange(len(height), dtype=np.float32)

    def errors(frequency, start):
        phases = (frequency[..., None] * frames + start[..., None]) % 1
        return np.abs(1 - np.abs(1 - 2 * phases) - height).sum(-1)

    grid = np.linspace(0, 0.5, 10 * len(height) + 1), np.arange(32) / 32
    frequency, start = (a.ravel().astype(np.float32) for a in np.meshgrid(*grid))
    # A coarse search gives 16 candidates, and a fine search tries all around each of them.
    coarse = errors(frequency, start).argsort()[:16]
    fine = np.linspace(-1, 1, 9, dtype=np.float32)
    frequency = frequency[coarse, None, None] + fine * (0.05 / len(height))
    start = start[coarse, None, None] + fine[:, None] / 32
    frequency, start = np.broadcast_arrays(frequency, start)
    best = np.unravel_index(errors(frequency, start).argmin(), frequency.shape)
    expected = frequency[best] * frames + start[best]
    branches = np.stack([height / 2, 1 - height / 2])
    distance = np.abs((branches - expected + 0.5) % 1 - 0.5)
    return np.where(distance[0] < distance[1], *branches), float(frequency[best])


_UNROLL: dict[str, Callable[[Positions, Stage], Paths]] = {
    "glide": _on_torus,
    "cross": _on_torus,
    "rotate": _around_centre,
    "bounce": _between_walls,
}
