"""Describes the canvas and how fast objects move on it.

Positions are (y, x) in pixels. Whole numbers are centres of pixels, and rows count downwards.
"""

import dataclasses
import math
from collections.abc import Callable

from stunet.errors import UserError, choose

_FEWEST_ROWS_OF_AN_ARM = 8

# The smallest drop of an object that falls, and the smallest swing of a pendulum, as shares of the
# largest drop and of the largest swing.
LEAST_REACH = 0.5
# A pendulum swings by at most 60 degrees to each side.
_WIDEST_SWING = math.pi / 3
# Each coordinate of a random path is a sum of equally strong sine waves. The frequency of each wave
# is drawn from its own part of the band from `SLOWEST_WAVE` to 1 waves per period.
WAVES, SLOWEST_WAVE = 3, 1 / 3


@dataclasses.dataclass(frozen=True)
class Stage:
    """Describes the canvas and how objects move on it.

    Attributes:
        motion: a key of `motions.MOTIONS`.
        height: rows of the canvas in pixels.
        width: columns of the canvas in pixels.
        size: diameter of an object in pixels. The thickness of an arm is half of `size`.
        speed: speed in pixels per frame. For an arm, it is the speed of its end. For an object that
            falls from the largest height, and for the widest swing of a pendulum without damping,
            it is the mean of the speed over a period. For a random path, it is the root mean square
            over many clips.
        period: number of frames in which an object moves once around the torus, from one wall to
            the other and back, or in which an arm turns once. For an object that falls from the
            largest height, it is the time from one bounce to the next. For a pendulum, it is the
            time of one swing to and fro. For a random path, it is the shortest period of its waves.
            If `period` is not 0, it replaces `speed`.
        spread: each object's speed is drawn from (1 - spread) to (1 + spread) times the speed.
        octaves: each object's speed is multiplied by 2^u, where u is drawn from -octaves to
            octaves. So the logarithm of the speed is uniform. Either `spread` or `octaves` is 0.

    Raises:
        UserError: objects do not fit on the canvas, or may move by half a period per frame or more,
            so that even neighbouring frames do not show the direction. Also raised if both `spread`
            and `octaves` are above 0.
    """

    motion: str
    height: int
    width: int
    size: float | int = 4.0
    speed: float | int = 1.0
    period: float | int = 0.0
    spread: float | int = 0.0
    octaves: float | int = 0.0

    def __post_init__(self):
        choose(_GEOMETRY, self.motion, "motion")
        if self.size < 2 or self.width < 2 * self.size:
            raise UserError(
                f"objects of {self.size:g} pixels on a canvas {self.width} pixels wide; their size "
                "must be at least 2 pixels and at most half the width"
            )
        if self.motion == "rotate" and min(self.height, self.width) < _FEWEST_ROWS_OF_AN_ARM:
            raise UserError(
                f"an arm needs {_FEWEST_ROWS_OF_AN_ARM} rows and columns to turn in, and the "
                f"canvas has {self.height}x{self.width}; choose another motion or a larger canvas"
            )
        if self.spread and self.octaves:
            raise UserError(
                f"speeds are spread by {self.spread:g} and by {self.octaves:g} octaves; set one of "
                "the two to 0"
            )
        if self.speeds[0] <= 0:
            raise UserError("objects stand still: give a positive speed or period, and spread < 1")
        shortest = min(self.path_length(axis) for axis in self.axes)
        # A period may be shorter than `period` by this factor.
        faster = self.factors[1] / _GEOMETRY[self.motion].shortest_period
        fastest = (1 / self.period if self.period else self.speed / shortest) * faster
        if fastest >= 0.5:
            raise UserError(
                f"objects may move {fastest:.3g} of a turn per frame, so that even neighbouring "
                "frames do not show the direction; the period must be above "
                f"{2 * faster:.3g} frames (the speed below "
                f"{shortest / 2 / faster:.3g} pixels per frame)"
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """Returns the axes along which objects move: x (1), and y (0) if there are enough rows."""
        return (1, 0) if self.height >= 2 * self.size else (1,)

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Returns, for y and x, whether objects that leave at one edge come back at the other."""
        return _GEOMETRY[self.motion].wraps(self)

    @property
    def arm(self) -> float:
        """Returns the arm's length in pixels, from the centre of the canvas to its end."""
        return min(self.height, self.width) / 2 - 1

    @property
    def centre(self) -> tuple[float, float]:
        """Returns (y, x) of the middle of the canvas."""
        return (self.height - 1) / 2, (self.width - 1) / 2

    @property
    def factors(self) -> tuple[float, float]:
        """Returns the least and the largest number by which an object's speed is multiplied."""
        return self.factor(0.0), self.factor(1.0)

    def factor(self, share: float) -> float:
        """Returns the number by which a speed is multiplied, for a random share from 0 to 1."""
        if self.octaves:
            return 2.0 ** (self.octaves * (2 * share - 1))
        return 1 + self.spread * (2 * share - 1)

    @property
    def speeds(self) -> tuple[float, float]:
        """Returns the lowest and the highest speed on any axis, in pixels per frame."""
        lengths = [self.path_length(axis) for axis in self.axes]
        speeds = [length / self.period for length in lengths] if self.period else [self.speed]
        slowest, fastest = self.factors
        slower, faster = _GEOMETRY[self.motion].speeds
        return min(speeds) * slowest * slower, max(speeds) * fastest * faster

    @property
    def periods(self) -> tuple[float, float]:
        """Returns the shortest and the longest period on any axis, in frames."""
        lengths = [self.path_length(axis) for axis in self.axes]
        periods = [self.period] if self.period else [length / self.speed for length in lengths]
        slowest, fastest = self.factors
        shortest = min(periods) / fastest * _GEOMETRY[self.motion].shortest_period
        return shortest, max(periods) / slowest

    def extent(self, axis: int) -> int:
        """Returns the number of pixels along an axis."""
        return (self.height, self.width)[axis]

    def walls(self, axis: int) -> tuple[float, float]:
        """Returns the least and largest position of the centre of an object between walls."""
        # Leaves half a pixel at the edge of the canvas for the object's soft edge.
        return self.size / 2, self.extent(axis) - 1 - self.size / 2

    def room(self, axis: int) -> float:
        """Returns the pixels that an object's centre can move between the walls."""
        least, largest = self.walls(axis)
        return largest - least

    @property
    def rod(self) -> float:
        """Returns a pendulum's length in pixels; 0 if it swings along a line.

        A pendulum at rest hangs in the middle of the lowest row that an object's centre can reach.
        """
        if len(self.axes) == 1:
            return 0.0
        return self.room(1) / 2 / math.sin(self.widest_swing)

    @property
    def widest_swing(self) -> float:
        """Returns the largest angle of a pendulum in radians, at which it touches a side wall.

        The angle is below 60 degrees if the pendulum would touch the ceiling first.
        """
        return min(_WIDEST_SWING, 2 * math.atan(2 * self.room(0) / self.room(1)))

    @property
    def pivot(self) -> tuple[float, float]:
        """Returns (y, x) of the point about which a pendulum swings."""
        return self.walls(0)[1] - self.rod, self.centre[1]

    @property
    def swing(self) -> float:
        """Returns a pendulum's largest distance from rest, along its path, in pixels."""
        return self.rod * self.widest_swing if self.rod else self.room(1) / 2

    def path_length(self, axis: int) -> float:
        """Returns the pixels that an object moves in one period.

        `Stage` says what a period is. For a random path, the length is that of a mean clip.
        """
        return float(_GEOMETRY[self.motion].path_length(self, axis))


def _wander_length(stage: Stage, axis: int) -> float:
    middles = [SLOWEST_WAVE + (1 - SLOWEST_WAVE) * (k + 0.5) / WAVES for k in range(WAVES)]
    # Root mean square of the slope of a mean of sine waves, each from -1 to 1.
    slope = 2 * math.pi * math.sqrt(sum(m**2 for m in middles) / 2) / WAVES
    return slope * math.hypot(*(stage.room(axis) / 2 for axis in stage.axes))


@dataclasses.dataclass(frozen=True)
class _Geometry:
    """Describes what one motion takes of the canvas.

    Attributes:
        path_length: function of stage and axis; see `Stage.path_length`.
        wraps: function of the stage; see `Stage.wraps`.
        shortest_period: an object's shortest period, as a share of the stage's period.
        speeds: the lowest and the highest speed of an object at a factor of 1, as shares of the
            stage's speed.
    """

    path_length: Callable[[Stage, int], float]
    wraps: Callable[[Stage], tuple[bool, bool]] = lambda stage: (False, False)
    shortest_period: float = 1.0
    speeds: tuple[float, float] = (1.0, 1.0)


def _torus(path_length: Callable[[Stage, int], float]) -> _Geometry:
    return _Geometry(path_length, lambda stage: (True, True))


_GEOMETRY = {
    "glide": _torus(Stage.extent),
    "cross": _torus(Stage.extent),
    "bounce": _Geometry(lambda stage, axis: 2 * stage.room(axis)),
    "rotate": _Geometry(lambda stage, axis: 2 * math.pi * stage.arm),
    "turn": _torus(lambda stage, axis: min(stage.extent(axis) for axis in stage.axes)),
    # From the same gravity follows that a drop of half the height takes sqrt(1/2) of the time.
    "fall": _Geometry(
        lambda stage, axis: 2 * stage.room(stage.axes[-1]),
        lambda stage: (False, len(stage.axes) == 2),
        shortest_period=math.sqrt(LEAST_REACH),
        speeds=(math.sqrt(LEAST_REACH), 1.0),
    ),
    "pendulum": _Geometry(lambda stage, axis: 4 * stage.swing, speeds=(LEAST_REACH, 1.0)),
    # The mean speed of a clip that is about as long as its slowest wave: 0.21 to 1.45 in 3,000
    # clips of twice the shortest period, 0.09 to 1.79 in clips as long as that period.
    "wander": _Geometry(_wander_length, speeds=(0.2, 2.0)),
}
