"""Measures whether objects in a clip keep one motion from the first frame to the last.

First, each object's positions are unrolled: they are converted to the distance that the object has
moved along its path. For motions at constant speed, the distance over time is a straight line
(`steady_paths`). For all other motions of `stunet.data.synthetic.motions`, what the data do is
fitted to the distance (`free_paths`). Each metric measures how far a clip is from the line, or from
what was fitted. A clip that stands still counts as perfectly coherent, so read all metrics together
with `speed`.

Each metric has one value for each clip, `[n]`. Units are pixels and frames.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.stage import Stage
from stunet.evaluate import free_paths, steady_paths, swaps, tracking
from stunet.evaluate.free_paths import FreePaths
from stunet.evaluate.steady_paths import STANDS_STILL, Paths
from stunet.evaluate.tracking import Clips, Positions

# Steps that differ by at most this much, in pixels per frame, count as the same velocity.
TOLERANCE = 1.0
# An arm's steps are those of its end, which moves twice as fast as its middle. What is fitted to a
# random path follows a break halfway, so that a part of the break is left. Of clips whose positions
# are off by 0.2 px at random, 80% or more are within these tolerances.
_TOLERANCES = {"rotate": 2.0, "wander": 0.75}

PerClip = Float[np.ndarray, " n"]
AnyPaths = Paths | FreePaths


def unroll(positions: Positions, stage: Stage) -> AnyPaths:
    """Converts the objects' positions to distances along their paths; see `Paths`, `FreePaths`."""
    is_free = stage.motion in free_paths.MOTIONS
    return free_paths.fit(positions, stage) if is_free else steady_paths.unroll(positions, stage)


def tolerance(stage: Stage) -> float:
    """Returns the largest deviation of a coherent clip, in pixels per frame."""
    return _TOLERANCES.get(stage.motion, TOLERANCE)


def measure(
    clips: Clips,
    stage: Stage,
    *,
    shapes: Sequence[Sequence[str]] | None = None,
    truth: Positions | None = None,
    factors: Float[np.ndarray, "n o 2"] | None = None,
    borders: Sequence[int] = (),
) -> dict[str, PerClip]:
    """Measures all metrics of clips whose objects can be tracked.

    Args:
        clips: clips in -1..1.
        stage: canvas and motion of the clips.
        shapes: shapes of the two objects of each clip; needed for `cross` only.
        truth: true positions of the objects, if captions or keyframes gave the direction of motion.
            The velocity is compared with the true velocity.
        factors: least and largest multiple of each object's true velocity that captions allow; None
            allows the true velocity alone.
        borders: first frame of each window except the first window. A window is a stretch of frames
            that the network makes at a time. Borders are measured separately from the rest.

    Returns:
        speed: speed in pixels per frame, the median over the clip. For motions whose speed changes
            it is the mean. For two objects, it is the mean of their speeds.
        step_length: median length of the clip's steps, whichever way they go, in pixels per frame;
            for two objects, the mean of both.
        true_speed: step length of the true positions; only with `truth`, and not if `factors` allow
            all speeds of the data, since the network was then not told the speed.
        coherent: 1 if no step differs by more than `tolerance(stage)` from the step of the motion
            that fits best. A step is the motion from one frame to the next.
        deviation: largest difference of a step from the step of the motion that fits best, in
            pixels per frame. For motions at constant speed, the best step is the median step.
        speed_error: pixels per frame by which the speed is outside the range of the data.
        velocity_error: length of the vector from the true velocity to the clip's velocity, in
            pixels per frame; only with `truth`. For motions whose velocity changes, the vector has
            the components that `FreePaths.velocity` names.
        faithful: 1 if the clip is coherent and its speed error is at most half of `TOLERANCE`. With
            `truth`, its velocity error must also be at most half of `TOLERANCE`.
        period_drift: change of an object's frequency (periods per frame) from the first half of the
            clip to the second, as a share of the higher frequency, 0..2. NaN for a clip without
            motion. Only for motions at constant speed.
        phase_drift: an object's largest distance from the steady motion that fits its path best,
            as a share of the period. Only for motions at constant speed.
        jump: mean change of velocity from step to step, except at borders, in pixels per frame.
            Changes that are part of the motion that fits best are taken off.
        border_jump: mean change of velocity at borders; only with `borders`.
        identity_drift: 1 minus the mean correlation between each object's look in a frame and its
            look in the first frame.
        identity_swaps: how often two objects exchange their looks or their paths; only for `cross`.
            See `swaps`.
    """
    positions = tracking.track(clips, stage, shapes)
    paths = unroll(positions, stage)
    values = {
        "speed": speed(paths),
        "step_length": step_length(paths),
        "coherent": (deviation(paths) <= tolerance(stage)).astype(float),
        "deviation": deviation(paths),
        "speed_error": speed_error(paths, stage),
    }
    correct = values["speed_error"] <= TOLERANCE / 2
    if truth is not None:
        true_paths = unroll(truth, stage)
        if _tell_speed(factors, stage):
            values["true_speed"] = step_length(true_paths)
        values["velocity_error"] = velocity_error(paths, true_paths, factors)
        correct &= values["velocity_error"] <= TOLERANCE / 2
    values["faithful"] = values["coherent"] * correct
    if isinstance(paths, FreePaths):
        # The range of mean speeds of short clips begins near 0.
        values["faithful"] *= values["speed"] > STANDS_STILL
    else:
        values["period_drift"] = period_drift(paths)
        values["phase_drift"] = phase_drift(paths)
    at_borders, values["jump"] = jumps(paths, borders)
    if borders:
        values["border_jump"] = at_borders
    values["identity_drift"] = identity_drift(clips, positions, stage)
    if stage.motion == "cross":
        values["identity_swaps"] = swaps.identity_swaps(positions, stage)
    return values


def speed(paths: AnyPaths) -> PerClip:
    """Returns the speed in pixels per frame; for two objects, the mean of both speeds."""
    return paths.speed.mean(-1)


def step_length(paths: AnyPaths) -> PerClip:
    """Returns the median length of a clip's steps, in pixels per frame.

    `speed` is the length of the median step. If parts of a clip move in opposite directions, its
    steps cancel in `speed`, but not here. For two objects, the value is the mean of both.
    """
    return np.median(np.linalg.norm(paths.steps, axis=-1), axis=2).mean(-1)


def _tell_speed(factors: Float[np.ndarray, "n o 2"] | None, stage: Stage) -> bool:
    """Tells whether a network was told less than the whole range of the data's speeds."""
    if factors is None:
        return True
    slowest, fastest = stage.factors
    return bool((factors[..., 1] / factors[..., 0] < 0.99 * fastest / slowest).all())


def deviation(paths: AnyPaths) -> PerClip:
    """Returns the largest difference of a step from the step that fits best, in pixels per frame.

    A step is the motion from one frame to the next. Steps are vectors, so a step backwards differs
    from a step forwards by twice the speed.
    """
    difference = paths.steps - paths.expected_steps
    return np.linalg.norm(difference, axis=-1).max(axis=(1, 2))


def speed_error(paths: AnyPaths, stage: Stage) -> PerClip:
    """Returns how far the speed is outside the data's range, in pixels per frame.

    A value above 0 reveals motion that keyframes have aliased, even if the true direction is
    unknown.
    """
    low, high = stage.speeds
    return np.maximum(np.maximum(low - paths.speeds, paths.speeds - high), 0).max(axis=(1, 2))


def velocity_error(
    paths: AnyPaths, truth: AnyPaths, factors: Float[np.ndarray, "n o 2"] | None = None
) -> PerClip:
    """Returns the error of the velocity in pixels per frame; for two objects, the larger error.

    Args:
        paths: paths whose velocity is judged.
        truth: true paths.
        factors: least and largest multiple of each object's true velocity that counts as right.
            None counts the true velocity alone.
    """
    right = truth.velocity
    if factors is not None:
        squared = np.maximum(np.square(right).sum(-1), 1e-9)
        nearest = (paths.velocity * right).sum(-1) / squared
        right = right * np.clip(nearest, factors[..., 0], factors[..., 1])[..., None]
    return np.linalg.norm(paths.velocity - right, axis=-1).max(-1)


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
    moves = np.linalg.norm(paths.steps, axis=-1).mean(-1) > STANDS_STILL
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


def jumps(paths: AnyPaths, borders: Sequence[int]) -> tuple[PerClip, PerClip]:
    """Returns the mean change of velocity at borders and elsewhere, in pixels per frame.

    Each of `borders` is the first frame of a window. A window is a stretch of frames that the
    network makes at a time. Two changes of velocity belong to each border: the change just before
    and the change just after the step into the window's first frame. A sudden shift of position
    appears in both changes. A lasting change of velocity appears in one. Changes that are part of
    the motion that fits best are taken off. NaN stands for a mean over no changes.
    """
    unexpected = paths.steps - paths.expected_steps
    change = np.linalg.norm(np.diff(unexpected, axis=2), axis=-1).mean(1)  # [n, t - 2]
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
