"""Draws clips of objects whose motion is known exactly, with true captions and positions.

There are four motions. In each, an object follows a closed path at constant speed. The time for one
round is its period:

- `glide`: one object moves along a row or column of a torus.
- `cross`: two objects glide along the same row or column in opposite directions.
- `bounce`: one object moves back and forth between two walls.
- `rotate`: an arm, which is a bar that begins at the centre of the canvas, turns about the centre.

Objects move along x alone if the canvas has fewer rows than two diameters of an object. A canvas
may have a single row.

The phase of an object is the share of its path that the object has covered, 0..1. From one keyframe
to the next, `stride` frames later, the phase grows by stride / period. Steps that differ by whole
periods look the same. Keyframes therefore cannot tell forwards from backwards motion if the period
is exactly twice the stride, or if periods vary (`spread`) and some are shorter than twice the
stride. On a torus, the period is shorter than twice the stride if an object moves more than half
the canvas between two keyframes.

Positions are (y, x) in pixels. Whole numbers are centres of pixels, and rows count downwards. A
torus wraps at `height` and `width`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stunet.data.spec import EncodeText
from stunet.data.synthetic import endless
from stunet.errors import UserError, choose

# Axis (0: y, 1: x) and sign of each direction.
DIRECTIONS = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
# Sign of the angle from the x axis towards the y axis. Since rows count downwards, positive angles
# are clockwise.
TURNS = {"clockwise": 1, "anticlockwise": -1}
# Axis (0: y, 1: x) of each direction of bouncing.
BOUNCES = {"left and right": 1, "up and down": 0}

# Softness of all edges in pixels. It is large enough for the centre of the drawn object to follow
# sub-pixel motion (to 0.02 px), and small enough to look sharp.
_EDGE = 0.4
_RING = 0.6

# Brightness, 0..1, at distance r from the centre of an object `size` pixels across. All shapes are
# round, so that their centroid is their position. They also differ on a single row.
SHAPES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "dot": lambda r, size: np.exp(-((6 * r / size) ** 2) / 2),
    "disc": lambda r, size: _inside(r - size / 2),
    "ring": lambda r, size: np.exp(-(((r - 0.4 * size) / _RING) ** 2) / 2),
}

_WORDS = 5
_FEWEST_ROWS_OF_AN_ARM = 8


@dataclasses.dataclass(frozen=True)
class Stage:
    """Describes the canvas and how objects move on it.

    Attributes:
        motion: a key of `MOTIONS`.
        height: rows of the canvas in pixels.
        width: columns of the canvas in pixels.
        size: diameter of an object in pixels. The thickness of an arm is half of `size`.
        speed: speed in pixels per frame; for an arm, the speed of its end.
        period: number of frames in which an object moves once around the torus, from one wall to
            the other and back, or in which an arm turns once. If `period` is not 0, it replaces
            `speed`.
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
        choose(MOTIONS, self.motion, "motion")
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
        fastest = (1 / self.period if self.period else self.speed / shortest) * self.factors[1]
        if fastest >= 0.5:
            raise UserError(
                f"objects may move {fastest:.3g} of a turn per frame, so that even neighbouring "
                "frames do not show the direction; the period must be above "
                f"{2 * self.factors[1]:g} frames (the speed below "
                f"{shortest / 2 / self.factors[1]:.3g} pixels per frame)"
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """Returns the axes along which objects move: x (1), and y (0) if there are enough rows."""
        return (1, 0) if self.height >= 2 * self.size else (1,)

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
        return min(speeds) * slowest, max(speeds) * fastest

    def extent(self, axis: int) -> int:
        """Returns the number of pixels along an axis."""
        return (self.height, self.width)[axis]

    def walls(self, axis: int) -> tuple[float, float]:
        """Returns the least and largest position of the centre of an object that bounces."""
        # Leaves half a pixel at the edge of the canvas for the object's soft edge.
        return self.size / 2, self.extent(axis) - 1 - self.size / 2

    def path_length(self, axis: int) -> float:
        """Returns the pixels that an object moves in one period.

        A period is once around the torus, to the other wall and back, or one turn of an arm.
        """
        if self.motion == "rotate":
            return 2 * math.pi * self.arm
        if self.motion == "bounce":
            least, largest = self.walls(axis)
            return 2 * (largest - least)
        return float(self.extent(axis))


@dataclasses.dataclass(frozen=True)
class Mover:
    """Describes one object of a clip and how it moves.

    Attributes:
        shape: a key of `SHAPES`, or "arm".
        direction: a key of `DIRECTIONS`, `BOUNCES` or `TURNS`, depending on the motion.
        speed: speed in pixels per frame; for an arm, the speed of its end.
        period: frames until the object is back where it started.
        phase: share of the period that has passed at the first frame, 0..1. At phase 0, an object
            on a torus is at row or column 0, an object that bounces is at the left or upper wall,
            and an arm points right. The phase grows by 1 / period in each frame.
        across: position, in pixels, of the row or column along which the object moves.
    """

    shape: str
    direction: str
    speed: float | int
    period: float | int
    phase: float | int
    across: float | int


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Holds the objects of a clip and their true positions in each frame.

    Attributes:
        movers: the objects, in the order of the caption.
        positions: (y, x) of each object's centre in pixels. The centre of an arm is the middle of
            its length.
        velocities: (dy, dx) of each object's centre in pixels per frame, at the moment of the
            frame. If an object bounces off a wall between two frames, these two frames have
            different velocities.
        periods: period of each object in frames.
        phases: share of each object's period that has passed at the first frame, 0..1.
    """

    movers: tuple[Mover, ...]
    positions: Float[np.ndarray, "o t 2"]
    velocities: Float[np.ndarray, "o t 2"]
    periods: Float[np.ndarray, " o"]
    phases: Float[np.ndarray, " o"]


def caption(movers: Sequence[Mover]) -> str:
    """Describes a clip, as in `a disc gliding right, and a ring gliding left`."""
    return ", and ".join(_phrase(mover) for mover in movers)


def place(
    stage: Stage, mover: Mover, frames: int
) -> tuple[Float[np.ndarray, "t 2"], Float[np.ndarray, "t 2"]]:
    """Returns an object's positions in pixels and velocities in pixels per frame; see `Truth`."""
    return MOTIONS[stage.motion].place(stage, mover, mover.phase + np.arange(frames) / mover.period)


def render(
    stage: Stage, shapes: Sequence[str], positions: Float[np.ndarray, "o t 2"]
) -> UInt8[np.ndarray, "t h w"]:
    """Draws objects at any positions. Where objects overlap, the brighter pixel is shown.

    Args:
        stage: the canvas and the motion.
        shapes: shape of each object: a key of `SHAPES`, or "arm" for a bar that points away from
            the centre of the canvas.
        positions: (y, x) of each object in each frame.

    Returns:
        Grey values, 0 (black) to 255.
    """
    clip = np.zeros((positions.shape[1], stage.height, stage.width))
    for shape, at in zip(shapes, positions, strict=True):
        dy = (np.arange(stage.height) - at[:, :1])[:, :, None]
        dx = (np.arange(stage.width) - at[:, 1:])[:, None, :]
        if MOTIONS[stage.motion].on_torus:
            dy, dx = _around(dy, stage.height), _around(dx, stage.width)
        if shape == "arm":
            drawn = _draw_arm(stage, at, dy, dx)
        else:
            drawn = SHAPES[shape](np.hypot(dy, dx), stage.size)
        clip = np.maximum(clip, drawn)
    return np.round(255 * clip).astype(np.uint8)


class Motions:
    """Gives random access to clips that are rendered when they are read.

    Clip `i` depends on (seed, split, i) alone.

    Indexing returns an example: `video` uint8 [frames, height, width, channels], `caption` str, and
    with `encode_text` also `text` float32 [l, d] and `text_mask` bool [l].
    """

    def __init__(
        self,
        split: str,
        stage: Stage,
        frames: int,
        channels: int = 1,
        seed: int = 0,
        encode_text: EncodeText | None = None,
        length: int | None = None,
    ):
        """Checks the arguments. Clips are drawn when they are read.

        Args:
            split: "train", or "val" for other clips of the same kind.
            stage: the canvas and the motion.
            frames: frames in each clip.
            channels: channels of each clip, over which the grey value is repeated.
            seed: seed of the clips, 0 or above.
            encode_text: encodes a list of n captions to states [n, l, d] and mask [n, l].
            length: clips in the source; None means 1,000,000 for train and 1,000 for val.

        Raises:
            UserError: the split is unknown, or a value is out of range.
        """
        length = endless.length_of("motions", split, length)
        check = {"frames": (frames, 1), "channels": (channels, 1), "seed": (seed, 0)}
        endless.check_least("motions", check | {"length": (length, 1)})
        self.split = split
        self.stage = stage
        self.frames = frames
        self.channels = channels
        self.seed = seed
        self.encode_text = encode_text
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        truth = self.truth(i)
        grey = render(self.stage, [mover.shape for mover in truth.movers], truth.positions)
        return endless.make_example(grey, caption(truth.movers), self.channels, self.encode_text)

    def truth(self, i: int) -> Truth:
        """Returns the objects of clip `i` and their positions without drawing the clip.

        Raises:
            IndexError: `i` is not in 0..length-1.
        """
        movers = self.movers(i)
        placed = [place(self.stage, mover, self.frames) for mover in movers]
        return Truth(
            movers,
            positions=np.stack([positions for positions, _ in placed]),
            velocities=np.stack([velocities for _, velocities in placed]),
            periods=np.array([mover.period for mover in movers]),
            phases=np.array([mover.phase for mover in movers]),
        )

    def movers(self, i: int) -> tuple[Mover, ...]:
        """Returns the objects of clip `i` in the order of the caption.

        Raises:
            IndexError: `i` is not in 0..length-1.
        """
        words = endless.random_words(self.seed, self.split, i, self.length, 2 * _WORDS)
        return MOTIONS[self.stage.motion].draw(self.stage, words)


def _draw_glide(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    shape, direction, phase, across, speed_word = words[:_WORDS]
    direction = _pick([d for d in DIRECTIONS if DIRECTIONS[d][0] in stage.axes], direction)
    axis = DIRECTIONS[direction][0]
    across = _across(stage, axis, across)
    return (_mover(stage, _pick(SHAPES, shape), direction, axis, phase, across, speed_word),)


def _draw_cross(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    (first,) = _draw_glide(stage, words)
    # The second object moves along the same line, so that the two meet.
    shape, _, phase, _, speed_word = words[_WORDS:]
    shape = _pick([shape for shape in SHAPES if shape != first.shape], shape)
    direction = OPPOSITE[first.direction]
    axis = DIRECTIONS[direction][0]
    return first, _mover(stage, shape, direction, axis, phase, first.across, speed_word)


def _draw_bounce(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    shape, direction, phase, across, speed_word = words[:_WORDS]
    direction = _pick([d for d in BOUNCES if BOUNCES[d] in stage.axes], direction)
    axis = BOUNCES[direction]
    across = _across(stage, axis, across)
    return (_mover(stage, _pick(SHAPES, shape), direction, axis, phase, across, speed_word),)


def _draw_rotate(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    _, direction, phase, _, speed_word = words[:_WORDS]
    return (_mover(stage, "arm", _pick(TURNS, direction), 1, phase, 0.0, speed_word),)


def _place_glide(stage: Stage, mover: Mover, phase: np.ndarray):
    axis, sign = DIRECTIONS[mover.direction]
    extent = stage.extent(axis)
    return _along(mover, axis, sign * phase * extent % extent, np.full(len(phase), sign))


def _place_bounce(stage: Stage, mover: Mover, phase: np.ndarray):
    axis = BOUNCES[mover.direction]
    least, largest = stage.walls(axis)
    forth = 1 - 2 * (phase % 1)  # 1 at the first wall, 0 at the second, -1 back at the first
    return _along(mover, axis, largest - (largest - least) * np.abs(forth), np.sign(forth))


def _place_rotate(stage: Stage, mover: Mover, phase: np.ndarray):
    sign = TURNS[mover.direction]
    angle = sign * 2 * np.pi * phase
    towards = np.stack([np.sin(angle), np.cos(angle)], -1)
    onwards = sign * np.stack([np.cos(angle), -np.sin(angle)], -1)
    # The position is the arm's middle, which moves half as fast as its end.
    return np.array(stage.centre) + towards * stage.arm / 2, onwards * mover.speed / 2


def _along(mover: Mover, axis: int, position: np.ndarray, sign: np.ndarray):
    positions = np.full((len(position), 2), float(mover.across))
    positions[:, axis] = position
    velocities = np.zeros((len(position), 2))
    velocities[:, axis] = sign * mover.speed
    return positions, velocities


def _mover(stage, shape, direction, axis, phase, across, speed_word) -> Mover:
    length = stage.path_length(axis)
    speed = length / stage.period if stage.period else stage.speed
    speed *= stage.factor(_fraction(speed_word))
    return Mover(shape, direction, speed, length / speed, _fraction(phase), across)


def _across(stage: Stage, axis: int, word: int) -> float:
    """Chooses the position, in pixels, of the row or column along which an object moves.

    The position is a random whole number, at which the object looks sharp. If the canvas has too
    few rows for a choice, the position is the middle of the rows.
    """
    if stage.motion == "bounce" and len(stage.axes) == 2:
        least, largest = (math.ceil(stage.walls(1 - axis)[0]), math.floor(stage.walls(1 - axis)[1]))
        return float(least + word % (largest - least + 1))
    return float(word % stage.extent(1 - axis)) if len(stage.axes) == 2 else stage.centre[1 - axis]


def _phrase(mover: Mover) -> str:
    verb = "turning" if mover.direction in TURNS else "gliding"
    verb = "bouncing" if mover.direction in BOUNCES else verb
    return f"{'an' if mover.shape == 'arm' else 'a'} {mover.shape} {verb} {mover.direction}"


def _draw_arm(stage: Stage, at: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Draws a bar [t, h, w] that begins at the canvas centre, with its middle at `at` [t, 2]."""
    y, x = (at - stage.centre).T[:, :, None, None]
    length = np.maximum(np.hypot(y, x), 1e-9)
    outwards, sideways = (dy * y + dx * x) / length, (dx * y - dy * x) / length
    thickness = stage.size / 2
    beyond = np.maximum(np.abs(outwards) - (stage.arm - thickness) / 2, 0)
    return _inside(np.hypot(beyond, sideways) - thickness / 2)


def _inside(distance: np.ndarray) -> np.ndarray:
    """Maps signed distances from an object's edge to brightness, with a soft step from 1 to 0.

    Distances inside of the object are negative.
    """
    return 0.5 - 0.5 * np.tanh(distance / (2 * _EDGE))


def _around(offset: np.ndarray, extent: int) -> np.ndarray:
    """Wraps an offset on a torus to the signed distance in -extent/2..extent/2."""
    return (offset + extent / 2) % extent - extent / 2


def _fraction(word: int) -> float:
    """Maps a random word of 64 bits to 0..1."""
    return word / 2**64


def _pick(choices, word: int) -> str:
    """Chooses an entry by a random word."""
    return tuple(choices)[word % len(choices)]


@dataclasses.dataclass(frozen=True)
class _Motion:
    """Implements one motion.

    Attributes:
        on_torus: True if objects wrap around the edges of the canvas.
        draw: draws the objects of a clip from random words.
        place: returns positions and velocities [t, 2] of an object at phases [t].
    """

    on_torus: bool
    draw: Callable[[Stage, list[int]], tuple[Mover, ...]]
    place: Callable[[Stage, Mover, np.ndarray], tuple[np.ndarray, np.ndarray]]


MOTIONS = {
    "glide": _Motion(True, _draw_glide, _place_glide),
    "cross": _Motion(True, _draw_cross, _place_glide),
    "bounce": _Motion(False, _draw_bounce, _place_bounce),
    "rotate": _Motion(False, _draw_rotate, _place_rotate),
}
