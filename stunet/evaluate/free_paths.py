"""Fits to tracked positions what objects of changing velocity do in the data.

The motions are those of `stunet.data.synthetic.free_motions`. Each has a model of its own:

- `fall`: constant gravity, a floor that throws the object back without loss, and a constant drift.
- `pendulum`: a sine wave about the place at rest, whose size shrinks at a constant rate.
- `wander`: waves whose frequencies lie in the data's band, so that acceleration and jerk are small.
- `turn`: a constant velocity until some frame, and another constant velocity from there on.

No model knows where an object is at first, how fast it moves, or when it turns.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.stage import SLOWEST_WAVE, WAVES, Stage
from stunet.evaluate.steady_paths import STANDS_STILL, torus_steps
from stunet.evaluate.tracking import Positions

# Error of a tracked position, in pixels, that a random path allows for.
_TRACKING_ERROR = 0.1
# Steps on either side of a turn, at the least.
_FEWEST_STEPS = 2
# Share of a pendulum's swing that is left after a period.
_DAMPING = (0.3, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class FreePaths:
    """Holds the paths of objects, and the motions of the data that fit them best.

    The shapes stand for n clips of t frames with o objects each, and d components of a distance.

    Attributes:
        distance: distance of each object at each frame, in pixels. On a torus, and for a random
            path, the components are the signed distances along y and x. For an object that falls,
            they are its height and its distance sideways. For a pendulum, they are the distance
            from rest along its path, and the distance outwards from its path.
        fitted: the same for the motion of the data that fits best.
        velocity: what stays the same in the motion that fits best, in pixels per frame. For an
            object that falls, these are the mean speed between two bounces and the drift. For a
            pendulum, it is the mean speed without damping. For an object that turns, these are
            its two velocities. A random path keeps nothing; all its steps take the place, divided
            by the root of their number. All are 0 if an object stands still.
        speeds: speeds of that motion, in pixels per frame, to compare with the speeds of the data.
    """

    distance: Float[np.ndarray, "n o t d"]
    fitted: Float[np.ndarray, "n o t d"]
    velocity: Float[np.ndarray, "n o v"]
    speeds: Float[np.ndarray, "n o k"]

    @property
    def steps(self) -> Float[np.ndarray, "n o s d"]:
        """Returns how many pixels each object moves from each frame to the next; s is t - 1."""
        return np.diff(self.distance, axis=2)

    @property
    def expected_steps(self) -> Float[np.ndarray, "n o s d"]:
        """Returns the steps of the motion that fits best."""
        return np.diff(self.fitted, axis=2)

    @property
    def speed(self) -> Float[np.ndarray, "n o"]:
        """Returns the mean length of a step, in pixels per frame."""
        return np.linalg.norm(self.steps, axis=-1).mean(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Fit:
    """Holds the attributes of `FreePaths` for one object."""

    distance: Float[np.ndarray, "t d"]
    fitted: Float[np.ndarray, "t d"]
    velocity: Sequence[float] | Float[np.ndarray, " v"]
    speeds: Sequence[float] | Float[np.ndarray, " k"]


def fit(positions: Positions, stage: Stage) -> FreePaths:
    """Fits the motion of the stage to the positions of each object."""
    fits = [[_FITS[stage.motion](track, stage) for track in clip] for clip in positions]
    paths = FreePaths(
        *(
            np.array([[getattr(fit, field.name) for fit in clip] for clip in fits], float)
            for field in dataclasses.fields(FreePaths)
        )
    )
    moves = (paths.speed > STANDS_STILL)[..., None]
    return dataclasses.replace(paths, velocity=paths.velocity * moves, speeds=paths.speeds * moves)


def _fit_fall(track: np.ndarray, stage: Stage) -> _Fit:
    """Fits bounces under gravity along one axis, and a constant drift along the other."""
    axis = stage.axes[-1]
    least, largest = stage.walls(axis)
    # Along x alone, an object falls to the right (1) or to the left (-1).
    floors = {1: largest - track[:, axis]}
    if len(stage.axes) == 1:
        floors[-1] = track[:, axis] - least
    found = {down: _fit_bounces(heights) for down, heights in floors.items()}
    down = min(found, key=lambda down: np.square(found[down][0] - floors[down]).sum())
    heights, speed = found[down]
    drift, drifts = np.zeros(len(track)), np.zeros(len(track))
    across = track[:, 1 - axis]
    if len(stage.axes) == 2:
        across = np.cumsum(np.concatenate([across[:1], torus_steps(across, stage.width)]))
        drift = np.median(np.diff(across))
        drifts = drift * np.arange(len(track))
        velocity = [speed, drift]
    else:
        velocity = [down * speed, 0.0]
    return _Fit(
        np.stack([floors[down], across], -1), np.stack([heights, drifts], -1), velocity, [speed]
    )


def _fit_bounces(heights: np.ndarray) -> tuple[np.ndarray, float]:
    """Fits equal parabolas to heights [t] above the floor.

    Returns the fitted heights, and the mean speed in pixels per frame.
    """
    frames = np.arange(len(heights))

    def shape(points):
        phases = (points[:, :1] * frames + points[:, 1:]) % 1
        return 4 * phases * (1 - phases)

    def drops(shapes):
        return np.maximum(shapes @ heights, 0) / np.maximum(np.square(shapes).sum(-1), 1e-9)

    def cost(points):
        shapes = shape(points)
        return np.square(drops(shapes)[:, None] * shapes - heights).sum(-1)

    frequencies = np.linspace(0, 0.5, 10 * len(heights) + 1)
    best = _least(cost, [frequencies, np.arange(32) / 32])[None]
    (parabolas,), (drop,) = shape(best), drops(shape(best))
    return drop * parabolas, float(2 * drop * abs(best[0, 0]))


def _fit_pendulum(track: np.ndarray, stage: Stage) -> _Fit:
    """Fits a damped sine wave to the distance from rest along the path."""
    if stage.rod:
        y, x = (track - np.array(stage.pivot)).T
        along, outwards = stage.rod * np.arctan2(x, y), np.hypot(x, y) - stage.rod
    else:
        along, outwards = track[:, 1] - stage.centre[1], track[:, 0] - stage.centre[0]
    frames = np.arange(len(track))

    def waves(points):
        frequency, damping = points[:, :1], np.clip(points[:, 1:], *_DAMPING)
        return damping ** (frequency * frames) * np.exp(2j * np.pi * frequency * frames)

    def amplitudes(waves):
        # Least squares for along = real(amplitude * wave), with a little of a ridge.
        cos, sin = waves.real, -waves.imag
        a, b, c = (cos * cos).sum(-1) + 1e-6, (sin * sin).sum(-1) + 1e-6, (cos * sin).sum(-1)
        u, v = cos @ along, sin @ along
        return ((b * u - c * v) + 1j * (a * v - c * u)) / np.maximum(a * b - c * c, 1e-12)

    def cost(points):
        found = waves(points)
        return np.square((amplitudes(found)[:, None] * found).real - along).sum(-1)

    frequencies = np.linspace(0, 0.5, 10 * len(track) + 1)
    best = _least(cost, [frequencies, np.linspace(*_DAMPING, 8)])[None]
    (wave,), (amplitude,) = waves(best), amplitudes(waves(best))
    speed = 4 * abs(amplitude) * abs(best[0, 0])
    return _Fit(
        np.stack([along, outwards], -1),
        np.stack([(amplitude * wave).real, np.zeros(len(track))], -1),
        [speed],
        [speed],
    )


def _fit_wander(track: np.ndarray, stage: Stage) -> _Fit:
    """Fits the smooth path that is most probable, given the data's band of frequencies."""
    smooth = np.zeros(track.shape)
    for axis in (0, 1):
        if axis in stage.axes:
            away = track[:, axis] - stage.centre[axis]
            smooth[:, axis] = _smoother(stage, axis, len(track)) @ away
    steps = np.diff(track, axis=0)
    return _Fit(
        track,
        smooth,
        steps.ravel() / np.sqrt(len(steps)),
        [np.linalg.norm(steps, axis=-1).mean()],
    )


@functools.lru_cache(maxsize=8)
def _smoother(stage: Stage, axis: int, frames: int) -> np.ndarray:
    """Returns the matrix [t, t] that maps positions to the most probable smooth path.

    The path is a Gaussian process with the variance and the frequencies of the data. Positions are
    the path plus the error of tracking. If speeds vary, the band is that of all speeds together, so
    a slow object may change its velocity as suddenly as a fast one.
    """
    shortest, longest = stage.periods
    frequencies = np.linspace(SLOWEST_WAVE / longest, 1 / shortest, 4 * frames + 16)
    apart = np.subtract.outer(np.arange(frames), np.arange(frames))
    # Variance of a mean of sine waves, each from -1 to 1.
    variance = (stage.room(axis) / 2) ** 2 / (2 * WAVES)
    covariance = variance * np.cos(2 * np.pi * apart[..., None] * frequencies).mean(-1)
    noise = _TRACKING_ERROR**2 * np.eye(frames)
    return np.linalg.solve(covariance + noise, covariance).T


def _fit_turn(track: np.ndarray, stage: Stage) -> _Fit:
    """Fits two velocities, and the frame of the change at which the largest error is least."""
    steps = np.stack([torus_steps(track[:, a], stage.extent(a)) for a in (0, 1)], -1)
    distance = np.concatenate([track[:1], steps]).cumsum(0)
    found = []
    for turns_at in range(_FEWEST_STEPS, len(steps) - _FEWEST_STEPS + 1) or [len(steps)]:
        before = _middle(steps[:turns_at])
        after = _middle(steps[turns_at:]) if turns_at < len(steps) else before
        expected = np.where(np.arange(len(steps))[:, None] < turns_at, before, after)
        error = np.linalg.norm(steps - expected, axis=-1).max()
        found.append((error, expected, np.concatenate([before, after])))
    _, expected, velocity = min(found, key=lambda one: one[0])
    fitted = np.concatenate([track[:1], expected]).cumsum(0)
    speeds = np.linalg.norm(velocity.reshape(2, 2), axis=-1)
    return _Fit(distance, fitted, velocity, speeds)


def _middle(steps: np.ndarray) -> np.ndarray:
    """Returns the median of each component, the lower one of two that are in the middle.

    The mean of the two would lie halfway between two velocities, and hide half of a change.
    """
    return np.sort(steps, axis=0)[(len(steps) - 1) // 2]


def _least(
    cost: Callable[[np.ndarray], np.ndarray], grid: Sequence[np.ndarray], rounds: int = 5
) -> np.ndarray:
    """Returns the point [p] of the least cost, among those near the best points of a grid.

    Each round searches around the best 16 points, each time four times as finely.

    Args:
        cost: function of points [m, p] that returns their costs [m].
        grid: evenly spaced values of each of the p coordinates.
        rounds: number of searches after the first.
    """
    points = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, len(grid))
    spacing = np.array([values[1] - values[0] for values in grid])
    around = np.array(list(itertools.product(np.linspace(-1, 1, 9), repeat=len(grid))))
    for _ in range(rounds):
        best = points[cost(points).argsort()[:16]]
        points = (best[:, None] + spacing * around).reshape(-1, len(grid))
        spacing = spacing / 4
    return points[cost(points).argmin()]


_FITS: dict[str, Callable[[np.ndarray, Stage], _Fit]] = {
    "fall": _fit_fall,
    "pendulum": _fit_pendulum,
    "wander": _fit_wander,
    "turn": _fit_turn,
}
MOTIONS = tuple(_FITS)
