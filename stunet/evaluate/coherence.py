"""Measures whether objects in a clip keep one steady motion from the first frame to the last.

First, each object's positions are unrolled. They are converted to the distance that the object has
moved along its path. The path leads over the edges of a torus, around the centre, or to and fro
between walls. Over time, the distance is a straight line for every motion of
`stunet.data.synthetic.motions`. Each metric measures how far a clip is from a straight line. A clip
that stands still counts as perfectly coherent, so read all metrics together with `speed`.

Each metric has one value for each clip, `[n]`. Units are pixels and frames.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.motions import Stage
from stunet.evaluate import tracking
from stunet.evaluate.tracking import Clips, Positions

# Steps that differ by at most this much, in pixels per frame, count as the same velocity.
TOLERANCE = 1.0
# An object slower than this, in pixels per frame, has no period.
_STANDS_STILL = 0.1

PerClip = Float[np.ndarray, " n"]


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


def unroll(positions: Positions, stage: Stage) -> Paths:
    """Converts the objects' positions to distances along their paths.

    Neighbouring frames are assumed to be less than half a period of the motion apart.
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
    """Measures all metrics of clips whose objects can be tracked.

    Args:
        clips: clips in -1..1.
        stage: canvas and motion of the clips.
        shapes: shapes of the two objects of each clip; needed for `cross` only.
        truth: true positions of the objects, if captions or keyframes gave the direction of motion.
            The velocity is compared with the true velocity.
        borders: first frame of each window except the first window. A window is a stretch of frames
            that the network makes at a time. Borders are measured separately from the rest.

    Returns:
        speed: median speed over the clip in pixels per frame; for two objects, the mean of their
            median speeds.
        step_length: median length of the clip's steps, whichever way they go, in pixels per frame;
            for two objects, the mean of both.
        true_speed: step length of the true positions; only with `truth`.
        coherent: 1 if no step differs from the clip's median step by more than `TOLERANCE`. A step
            is the motion from one frame to the next.
        deviation: largest difference of a step from the median step, in pixels per frame.
        speed_error: pixels per frame by which the speed is outside the range of the data.
        velocity_error: length of the vector from the true velocity to the clip's velocity, in
            pixels per frame; only with `truth`.
        faithful: 1 if the clip is coherent and its speed error is at most half of `TOLERANCE`. With
            `truth`, its velocity error must also be at most half of `TOLERANCE`.
        period_drift: change of an object's frequency (periods per frame) from the first half of the
            clip to the second, as a share of the higher frequency, 0..2. NaN for a clip without
            motion.
        phase_drift: an object's largest distance from the steady motion that fits its path best,
            as a share of the period.
        jump: mean change of velocity from step to step, except at borders, in pixels per frame.
        border_jump: mean change of velocity at borders; only with `borders`.
        identity_drift: 1 minus the mean correlation between each object's look in a frame and its
            look in the first frame.
    """
    positions = tracking.track(clips, stage, shapes)
    paths = unroll(positions, stage)
    values = {
        "speed": speed(paths),
        "step_length": step_length(paths),
        "coherent": (deviation(paths) <= TOLERANCE).astype(float),
        "deviation": deviation(paths),
        "speed_error": speed_error(paths, stage),
    }
    correct = values["speed_error"] <= TOLERANCE / 2
    if truth is not None:
        true_paths = unroll(truth, stage)
        values["true_speed"] = step_length(true_paths)
        values["velocity_error"] = velocity_error(paths, true_paths)
        correct &= values["velocity_error"] <= TOLERANCE / 2
    values["faithful"] = values["coherent"] * correct
    values["period_drift"] = period_drift(paths)
    values["phase_drift"] = phase_drift(paths)
    at_borders, values["jump"] = jumps(paths, borders)
    if borders:
        values["border_jump"] = at_borders
    values["identity_drift"] = identity_drift(clips, positions, stage)
    return values


def speed(paths: Paths) -> PerClip:
    """Returns the median speed in pixels per frame; for two objects, the mean of both medians."""
    return np.linalg.norm(paths.velocity, axis=-1).mean(-1)


def step_length(paths: Paths) -> PerClip:
    """Returns the median length of a clip's steps, in pixels per frame.

    `speed` is the length of the median step. If parts of a clip move in opposite directions, its
    steps cancel in `speed`, but not here. For two objects, the value is the mean of both.
    """
    return np.median(np.linalg.norm(paths.steps, axis=-1), axis=2).mean(-1)


def deviation(paths: Paths) -> PerClip:
    """Returns the largest difference of a step from the clip's median step, in pixels per frame.

    A step is the motion from one frame to the next. Steps are vectors, so a step backwards differs
    from a step forwards by twice the speed.
    """
    difference = paths.steps - paths.velocity[:, :, None]
    return np.linalg.norm(difference, axis=-1).max(axis=(1, 2))


def speed_error(paths: Paths, stage: Stage) -> PerClip:
    """Returns how far the speed is outside the data's range, in pixels per frame.

    A value above 0 reveals motion that keyframes have aliased, even if the true direction is
    unknown.
    """
    speeds = np.linalg.norm(paths.velocity, axis=-1)
    low, high = stage.speeds
    return np.maximum(np.maximum(low - speeds, speeds - high), 0).max(-1)


def velocity_error(paths: Paths, truth: Paths) -> PerClip:
    """Returns the error of the velocity in pixels per frame; for two objects, the larger error."""
    return np.linalg.norm(paths.velocity - truth.velocity, axis=-1).max(-1)


def period_drift(paths: Paths) -> PerClip:
    """Returns how much an object's frequency differs between a clip's first and second half, 0..2.

    The frequency is the number of periods per frame, and the difference is a share of the higher
    frequency. The value is 1 if one half stands still. It is 2 if the halves move at the same speed
    in opposite directions. The frequency of a half follows from the slope of the straight line that
    fits the object's distance over time best. NaN stands for a clip with an object that moves less
    than 0.1 pixels per frame.
    """
    middle = paths.distance.shape[2] // 2
    halves = [_slopes(paths.distance[:, :, k]) for k in (slice(middle), slice(middle, None))]
    change = np.linalg.norm(halves[1] - halves[0], axis=-1)
    fastest = np.max([np.linalg.norm(half, axis=-1) for half in halves], axis=0)
    moves = np.linalg.norm(paths.steps, axis=-1).mean(-1) > _STANDS_STILL
    return np.where(moves, change / np.maximum(fastest, 1e-9), np.nan).max(-1)


def phase_drift(paths: Paths) -> PerClip:
    """Returns an object's largest distance from the steady motion that fits its path best.

    The distance is given as a share of the length of the object's path over one period.
    """
    distance = paths.distance
    frames = np.arange(distance.shape[2]) - (distance.shape[2] - 1) / 2
    line = _slopes(distance)[:, :, None] * frames[:, None]
    residual = distance - distance.mean(axis=2, keepdims=True) - line
    return (np.linalg.norm(residual, axis=-1).max(-1) / paths.turn).max(-1)


def jumps(paths: Paths, borders: Sequence[int]) -> tuple[PerClip, PerClip]:
    """Returns the mean change of velocity at borders and elsewhere, in pixels per frame.

    Each of `borders` is the first frame of a window. A window is a stretch of frames that the
    network makes at a time. Two changes of velocity belong to each border: the change just before
    and the change just after the step into the window's first frame. A sudden shift of position
    appears in both changes. A lasting change of velocity appears in one. NaN stands for a mean over
    no changes.
    """
    change = np.linalg.norm(np.diff(paths.steps, axis=2), axis=-1).mean(1)  # [n, t - 2]
    return at_and_elsewhere(change, {k for b in borders for k in (b - 2, b - 1)})


def identity_drift(clips: Clips, positions: Positions, stage: Stage) -> PerClip:
    """Returns 1 minus the mean correlation of each object's look with its look in the first frame.

    NaN stands for a clip whose two objects overlap in every frame.
    """
    similarity = tracking.similarity(clips, positions, stage).reshape(len(clips), -1)
    return np.maximum(1 - _mean(similarity), 0)  # Rounding may give a value below 0.


def at_and_elsewhere(values: Float[np.ndarray, "n s"], at: set[int]) -> tuple[PerClip, PerClip]:
    """Returns each row's mean over the columns `at`, and each row's mean over all other columns.

    A mean of no values is NaN.
    """
    chosen = np.isin(np.arange(values.shape[1]), sorted(at))
    return _mean(values[:, chosen]), _mean(values[:, ~chosen])


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns each row's mean over the values that are not NaN, or NaN if all values are NaN."""
    counted = ~np.isnan(values)
    total, count = np.where(counted, values, 0).sum(1), counted.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _slopes(distance: np.ndarray) -> np.ndarray:
    """Returns the slopes [n, o, d] of the straight lines that fit distances [n, o, t, d] best.

    The letters are as in `Paths`.
    """
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


_UNROLL = {
    "glide": _on_torus,
    "cross": _on_torus,
    "rotate": _around_centre,
    "bounce": _between_walls,
}
