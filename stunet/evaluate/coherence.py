"""Whether the motion of one clip is one motion: constant where the data's is, from end to end.

The positions of objects whose motion is known in kind are first unrolled, to the distance that each
has gone along its path: over the edges of the torus, around the centre, or between the walls. In
those distances every motion of `stunet.data.synthetic.motions` is a straight line over time, and
each figure says how far a clip is from one. None of them sees how much moves: read them beside
`speed`, as a clip that stands still is as coherent as can be.

Every figure has a value for each clip, `[n]`. Units are pixels and frames.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.motions import Stage
from stunet.evaluate import tracking
from stunet.evaluate.tracking import Clips, Positions

# Pixels a frame within which a speed counts as the same.
TOLERANCE = 1.0
# Slower than this, in pixels a frame, nothing has a period.
_STANDS_STILL = 0.1

PerClip = Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """How far objects have gone.

    Attributes:
      distance: [n, o, t, d] in pixels: (y, x) on a torus, signed; of an arm its end's, clockwise;
        of a bouncing ball without sign, as to and fro look alike, and then what it moves across.
      turn: [n, o], pixels of a whole period.
    """

    distance: Float[np.ndarray, "n o t d"]
    turn: Float[np.ndarray, "n o"]

    @property
    def steps(self) -> Float[np.ndarray, "n o s d"]:
        """Pixels from each frame to the next."""
        return np.diff(self.distance, axis=2)

    @property
    def velocity(self) -> Float[np.ndarray, "n o d"]:
        """Pixels a frame: the median over the clip."""
        return np.median(self.steps, axis=2)


def unroll(positions: Positions, stage: Stage) -> Paths:
    """The distances gone by objects at these positions of each frame.

    Neighbouring frames are taken to be less than half a turn apart.
    """
    return _UNROLL[stage.motion](positions, stage)


def measure(
    clips: Clips,
    stage: Stage,
    *,
    shapes: Sequence[Sequence[str]] | None = None,
    truth: Positions | None = None,
    borders: Sequence[int] = (),
) -> dict[str, PerClip]:
    """All figures of clips whose objects can be tracked.

    Args:
      clips: in -1..1.
      stage: what they show.
      shapes: of each clip, those of its two objects; needed for `cross` alone.
      truth: where the objects should be, if the clips were told which way to move: of each, the
        velocity is compared.
      borders: first frames of windows, to tell what happens there from what happens elsewhere.

    Returns:
      speed: pixels a frame, the median over the clip; of two objects, the mean.
      coherent: 1 if no step differs from that of the clip's median by more than `TOLERANCE`.
      deviation: pixels a frame, the largest such difference.
      speed_error: pixels a frame by which `speed` is outside of what the data has.
      velocity_error: pixels a frame from the true velocity, direction included; with `truth` alone.
      faithful: 1 if coherent, and neither error is above half of `TOLERANCE`.
      period_drift: change of the frequency from the first half of the clip to the second, as a
        share of the higher, 0..2. NaN where nothing moves.
      phase_drift: largest distance from the straight line that fits best, in periods.
      jump: pixels a frame, the mean change of velocity from step to step, but at borders.
      border_jump: the same at borders, if there are any.
      identity_drift: 1 - the mean correlation of the object in each frame with the first.
    """
    positions = tracking.track(clips, stage, shapes)
    paths = unroll(positions, stage)
    values = {
        "speed": speed(paths),
        "coherent": (deviation(paths) <= TOLERANCE).astype(float),
        "deviation": deviation(paths),
        "speed_error": speed_error(paths, stage),
    }
    right = values["speed_error"] <= TOLERANCE / 2
    if truth is not None:
        values["velocity_error"] = velocity_error(paths, unroll(truth, stage))
        right &= values["velocity_error"] <= TOLERANCE / 2
    values["faithful"] = values["coherent"] * right
    values["period_drift"] = period_drift(paths)
    values["phase_drift"] = phase_drift(paths)
    at_borders, values["jump"] = jumps(paths, borders)
    if borders:
        values["border_jump"] = at_borders
    values["identity_drift"] = identity_drift(clips, positions, stage)
    return values


def speed(paths: Paths) -> PerClip:
    """Pixels a frame; of several objects, the mean."""
    return np.linalg.norm(paths.velocity, axis=-1).mean(-1)


def deviation(paths: Paths) -> PerClip:
    """Largest difference of a step from the clip's median step, in pixels a frame.

    It is signed and a vector: a step backwards differs from one forwards by twice the speed.
    """
    off = paths.steps - paths.velocity[:, :, None]
    return np.linalg.norm(off, axis=-1).max(axis=(1, 2))


def speed_error(paths: Paths, stage: Stage) -> PerClip:
    """Pixels a frame by which the speed is below the lowest or above the highest of the data.

    Of motion aliased by keyframes it is what was lost, without knowing which way it should go.
    """
    speeds = np.linalg.norm(paths.velocity, axis=-1)
    low, high = stage.speeds
    return np.maximum(np.maximum(low - speeds, speeds - high), 0).max(-1)


def velocity_error(paths: Paths, truth: Paths) -> PerClip:
    """Pixels a frame from the true velocity; of several objects, the largest."""
    return np.linalg.norm(paths.velocity - truth.velocity, axis=-1).max(-1)


def period_drift(paths: Paths) -> PerClip:
    """Change of the frequency between the halves of a clip, as a share of the higher: 0..2.

    It is 1 if one half stands still, and 2 if they move opposite ways. The velocity of a half is
    the slope of the line that fits it best. NaN where what moves does so by less than 0.1 pixels.
    """
    middle = paths.distance.shape[2] // 2
    halves = [_slopes(paths.distance[:, :, k]) for k in (slice(middle), slice(middle, None))]
    change = np.linalg.norm(halves[1] - halves[0], axis=-1)
    fastest = np.max([np.linalg.norm(half, axis=-1) for half in halves], axis=0)
    moves = np.linalg.norm(paths.steps, axis=-1).mean(-1) > _STANDS_STILL
    return np.where(moves, change / np.maximum(fastest, 1e-9), np.nan).max(-1)


def phase_drift(paths: Paths) -> PerClip:
    """Largest distance from the straight line that fits best, as a share of the period."""
    distance = paths.distance
    frames = np.arange(distance.shape[2]) - (distance.shape[2] - 1) / 2
    line = _slopes(distance)[:, :, None] * frames[:, None]
    off = distance - distance.mean(axis=2, keepdims=True) - line
    return (np.linalg.norm(off, axis=-1).max(-1) / paths.turn).max(-1)


def jumps(paths: Paths, borders: Sequence[int]) -> tuple[PerClip, PerClip]:
    """Mean change of velocity from one step to the next, in pixels a frame: at borders, elsewhere.

    At the border of a window that begins with frame b are the two changes that the step to b has
    part in: a shift of phase is in both, and a change of velocity in one. NaN where there are none.
    """
    change = np.linalg.norm(np.diff(paths.steps, axis=2), axis=-1).mean(1)  # [n, t - 2]
    return at_and_elsewhere(change, {k for b in borders for k in (b - 2, b - 1)})


def identity_drift(clips: Clips, positions: Positions, stage: Stage) -> PerClip:
    """1 - the correlation of each object with its first frame, averaged over frames and objects.

    NaN where two objects overlap in every frame.
    """
    alike = tracking.likeness(clips, positions, stage).reshape(len(clips), -1)
    return np.maximum(1 - _mean(alike), 0)  # Not below by rounding.


def at_and_elsewhere(values: Float[np.ndarray, "n s"], at: set[int]) -> tuple[PerClip, PerClip]:
    """Means of the columns `at` and of the others; NaN for those that do not exist."""
    chosen = np.isin(np.arange(values.shape[1]), sorted(at))
    return _mean(values[:, chosen]), _mean(values[:, ~chosen])


def _mean(values: np.ndarray) -> np.ndarray:
    """Of each row, over what is not NaN; NaN if nothing is left."""
    counted = ~np.isnan(values)
    total, count = np.where(counted, values, 0).sum(1), counted.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _slopes(distance: np.ndarray) -> np.ndarray:
    """[n, o, d]: pixels a frame of the line that fits distances [n, o, t, d] best."""
    frames = np.arange(distance.shape[2]) - (distance.shape[2] - 1) / 2
    return np.einsum("t,notd->nod", frames, distance) / max((frames**2).sum(), 1e-9)


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
    """A ball's path is straight once it is mirrored at the walls; which way it goes in each frame
    is said by the steady motion that fits the clip best."""
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
    """Of a triangle wave's heights [t], 0..1: its phases [t], 0..1, and their growth a frame."""
    height = height.astype(np.float32)
    frames = np.arange(len(height), dtype=np.float32)

    def errors(frequency, start):
        phases = (frequency[..., None] * frames + start[..., None]) % 1
        return np.abs(1 - np.abs(1 - 2 * phases) - height).sum(-1)

    grid = np.linspace(0, 0.5, 10 * len(height) + 1), np.arange(32) / 32
    frequency, start = (a.ravel().astype(np.float32) for a in np.meshgrid(*grid))
    # The best of a coarse search, and then all around each of them.
    coarse = errors(frequency, start).argsort()[:16]
    fine = np.linspace(-1, 1, 9, dtype=np.float32)
    frequency = frequency[coarse, None, None] + fine * (0.05 / len(height))
    start = start[coarse, None, None] + fine[:, None] / 32
    frequency, start = np.broadcast_arrays(frequency, start)
    best = np.unravel_index(errors(frequency, start).argmin(), frequency.shape)
    expected = frequency[best] * frames + start[best]
    branches = np.stack([height / 2, 1 - height / 2])
    away = np.abs((branches - expected + 0.5) % 1 - 0.5)
    return np.where(away[0] < away[1], *branches), float(frequency[best])


_UNROLL = {
    "glide": _on_torus,
    "cross": _on_torus,
    "rotate": _around_centre,
    "bounce": _between_walls,
}
