"""Objects whose motion is known exactly: endless clips with true captions and the truth of each.

Four motions, each a path that is run through at constant speed and begins again after a period:
`glide`, along a row or column of a torus; `cross`, two objects that do so in opposite directions;
`bounce`, to and fro between two walls; `rotate`, an arm that turns about the centre of the canvas.
Where there are few rows, down to one, objects move along x alone: a line of pixels over time.

Frames `stride` apart show a path's phase in steps of stride / period, and steps that differ by a
whole turn look the same. So such keyframes cannot tell motion forwards from motion backwards if
the period is twice the stride, or if it varies (`spread`) and may be shorter than that: on a torus,
if speed * stride may pass half the canvas.

Positions are (y, x) in pixels: whole numbers are centres of pixels, and rows count downwards. A
torus wraps at `height` and `width`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from stunet.errors import UserError, choose

# Axis (0: y, 1: x) and sign of one pixel in that direction.
DIRECTIONS = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
# Of the angle from the x axis towards y, which is clockwise, as rows count downwards.
TURNS = {"clockwise": 1, "anticlockwise": -1}
# Axis.
BOUNCES = {"left and right": 1, "up and down": 0}

# Softness of all edges, in pixels: enough for the centre of what is drawn to follow sub-pixel
# motion (to 0.02 px), and little enough to look sharp.
_EDGE = 0.4
_RING = 0.6

# Brightness, 0..1, at distance r from the centre of an object `size` pixels across. All are round,
# so that their centroid is their position, and differ on a single row, too.
SHAPES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "dot": lambda r, size: np.exp(-((6 * r / size) ** 2) / 2),
    "disc": lambda r, size: _inside(r - size / 2),
    "ring": lambda r, size: np.exp(-(((r - 0.4 * size) / _RING) ** 2) / 2),
}

_SPLITS = {"train": 0, "val": 1}
_LENGTHS = {"train": 1_000_000, "val": 1_000}
_WORDS = 5
_FEWEST_ROWS_OF_AN_ARM = 8

EncodeText = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The canvas, and how objects move on it.

    Attributes:
      motion: a key of `MOTIONS`.
      height: rows, in pixels.
      width: columns, in pixels.
      size: pixels across an object; an arm is half as thick.
      speed: pixels a frame; of an arm, that of its end.
      period: frames of a turn of the torus, of a way to and fro, or of a turn of the arm; replaces
        `speed` unless it is 0.
      spread: each object's speed is drawn from (1 - spread) to (1 + spread) times that.

    Raises:
      UserError: objects that do not fit, or that move so fast that even the frames cannot tell
        which way: half a turn a frame, or more.
    """

    motion: str
    height: int
    width: int
    size: float | int = 4.0
    speed: float | int = 1.0
    period: float | int = 0.0
    spread: float | int = 0.0

    def __post_init__(self):
        choose(MOTIONS, self.motion, "motion")
        if self.size < 2 or self.width < 2 * self.size:
            raise UserError(
                f"objects of {self.size:g} pixels on a canvas {self.width} pixels wide; they need "
                "at least 2, and at most half the width"
            )
        if self.motion == "rotate" and min(self.height, self.width) < _FEWEST_ROWS_OF_AN_ARM:
            raise UserError(
                f"an arm needs {_FEWEST_ROWS_OF_AN_ARM} rows and columns to turn in, and the "
                f"canvas has {self.height}x{self.width}; take another motion, or more pixels"
            )
        if self.speeds[0] <= 0:
            raise UserError("objects stand still: give a positive speed or period, and spread < 1")
        shortest = min(self.path_length(axis) for axis in self.axes)
        fastest = (1 / self.period if self.period else self.speed / shortest) * (1 + self.spread)
        if fastest >= 0.5:
            raise UserError(
                f"objects may move {fastest:.3g} of a turn a frame, and even neighbouring frames "
                f"do not show which way; the period must be above {2 * (1 + self.spread):g} frames "
                f"(the speed below {shortest / 2 / (1 + self.spread):.3g} pixels a frame)"
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """Along which objects move: 0 (y) only if there are rows enough."""
        return (1, 0) if self.height >= 2 * self.size else (1,)

    @property
    def arm(self) -> float:
        """Length of the arm, in pixels, from the centre of the canvas to its end."""
        return min(self.height, self.width) / 2 - 1

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x) of the middle of the canvas."""
        return (self.height - 1) / 2, (self.width - 1) / 2

    @property
    def speeds(self) -> tuple[float, float]:
        """The lowest and the highest that are drawn, in pixels a frame, on any axis."""
        lengths = [self.path_length(axis) for axis in self.axes]
        speeds = [length / self.period for length in lengths] if self.period else [self.speed]
        return min(speeds) * (1 - self.spread), max(speeds) * (1 + self.spread)

    def extent(self, axis: int) -> int:
        """Pixels along an axis."""
        return (self.height, self.width)[axis]

    def walls(self, axis: int) -> tuple[float, float]:
        """Least and largest position of the centre of an object that bounces along an axis."""
        # Half a pixel from the edge of the canvas, for the soft edge of the object.
        return self.size / 2, self.extent(axis) - 1 - self.size / 2

    def path_length(self, axis: int) -> float:
        """Pixels of a whole period: around the torus, to and fro, or of a turn of the arm's end."""
        if self.motion == "rotate":
            return 2 * math.pi * self.arm
        if self.motion == "bounce":
            least, largest = self.walls(axis)
            return 2 * (largest - least)
        return float(self.extent(axis))


@dataclasses.dataclass(frozen=True)
class Mover:
    """One object of a clip, and how it moves.

    Attributes:
      shape: a key of `SHAPES`, or "arm".
      direction: a key of `DIRECTIONS`, `BOUNCES` or `TURNS`, as the motion asks.
      speed: pixels a frame; of an arm, that of its end.
      period: frames until it is back.
      phase: of the period, 0..1, where the first frame lies. 0 is at row or column 0 of a torus, at
        the left or upper wall, or pointing right; it grows by 1 / period a frame.
      across: the row (or column) along which it moves.
    """

    shape: str
    direction: str
    speed: float | int
    period: float | int
    phase: float | int
    across: float | int


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What moves in a clip, and where it is in each frame.

    Attributes:
      movers: the objects, in the order of the caption.
      positions: [o, t, 2], (y, x) in pixels; of an arm, its middle.
      velocities: [o, t, 2], (dy, dx) in pixels a frame, of the same points, at the moment of the
        frame: what bounces between two frames has another after than before.
      periods: [o], frames.
      phases: [o], of the period, 0..1, in the first frame.
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
    """Positions in pixels and velocities in pixels a frame; see `Truth`."""
    return MOTIONS[stage.motion].place(stage, mover, mover.phase + np.arange(frames) / mover.period)


def render(
    stage: Stage, shapes: Sequence[str], positions: Float[np.ndarray, "o t 2"]
) -> UInt8[np.ndarray, "t h w"]:
    """Draws objects at any positions; those that overlap combine by the brighter pixel.

    An arm points away from the centre of the canvas.

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
    """A random-access source of clips; clip `i` is a function of (seed, split, i) alone.

    Indexing gives an example: `video` uint8 [frames, height, width, channels], `caption` str, and
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
        """
        Args:
          split: "train" or "val", which draws other clips of the same kind.
          stage: the canvas and the motion.
          frames: frames in a clip.
          channels: the grey value is repeated over them.
          seed: 0 or above; another seed gives other clips.
          encode_text: from a list of n captions to states [n, l, d] and mask [n, l].
          length: clips in the source; by default 1,000,000 for train and 1,000 for val.

        Raises:
          UserError: an unknown split, or a value out of range.
        """
        if split not in _SPLITS:
            raise UserError(f"motions have no split {split!r}; choose from {', '.join(_SPLITS)}")
        length = _LENGTHS[split] if length is None else length
        for name, value, least in [
            ("frames", frames, 1),
            ("channels", channels, 1),
            ("seed", seed, 0),
            ("length", length, 1),
        ]:
            if value < least:
                raise UserError(f"motions need {name} of at least {least}, not {value}")
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
        example = {
            "video": np.repeat(grey[..., None], self.channels, axis=-1),
            "caption": caption(truth.movers),
        }
        if self.encode_text is not None:
            states, mask = self.encode_text([example["caption"]])
            example["text"], example["text_mask"] = states[0], mask[0]
        return example

    def truth(self, i: int) -> Truth:
        """What moves in clip `i`, and where it is, without drawing it.

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
        """The objects of clip `i`, in the order of the caption.

        Raises:
          IndexError: `i` is not in 0..length-1.
        """
        if not 0 <= i < self.length:
            raise IndexError(f"clip {i} of {self.length}")
        # Words of a SeedSequence, which stay the same in every NumPy (see moving_digits).
        entropy = np.random.SeedSequence([self.seed, _SPLITS[self.split], int(i)])
        words = entropy.generate_state(2 * _WORDS, np.uint64).tolist()
        return MOTIONS[self.stage.motion].draw(self.stage, words)


def _draw_glide(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    shape, direction, phase, across, speed_word = words[:_WORDS]
    direction = _pick([d for d in DIRECTIONS if DIRECTIONS[d][0] in stage.axes], direction)
    axis = DIRECTIONS[direction][0]
    across = _across(stage, axis, across)
    return (_mover(stage, _pick(SHAPES, shape), direction, axis, phase, across, speed_word),)


def _draw_cross(stage: Stage, words: list[int]) -> tuple[Mover, ...]:
    (first,) = _draw_glide(stage, words)
    # Along the same line, or they would not meet.
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
    # The middle of the arm, which moves half as fast as its end.
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
    speed *= 1 + stage.spread * (2 * _fraction(speed_word) - 1)
    return Mover(shape, direction, speed, length / speed, _fraction(phase), across)


def _across(stage: Stage, axis: int, word: int) -> float:
    """The row or column to move along: a whole pixel, so that its pixels are sharp."""
    if stage.motion == "bounce" and len(stage.axes) == 2:
        least, largest = (math.ceil(stage.walls(1 - axis)[0]), math.floor(stage.walls(1 - axis)[1]))
        return float(least + word % (largest - least + 1))
    return float(word % stage.extent(1 - axis)) if len(stage.axes) == 2 else stage.centre[1 - axis]


def _phrase(mover: Mover) -> str:
    verb = "turning" if mover.direction in TURNS else "gliding"
    verb = "bouncing" if mover.direction in BOUNCES else verb
    return f"{'an' if mover.shape == 'arm' else 'a'} {mover.shape} {verb} {mover.direction}"


def _draw_arm(stage: Stage, at: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """[t, h, w]: a bar from the centre of the canvas outwards, around its middle `at` [t, 2]."""
    y, x = (at - stage.centre).T[:, :, None, None]
    length = np.maximum(np.hypot(y, x), 1e-9)
    outwards, sideways = (dy * y + dx * x) / length, (dx * y - dy * x) / length
    thickness = stage.size / 2
    beyond = np.maximum(np.abs(outwards) - (stage.arm - thickness) / 2, 0)
    return _inside(np.hypot(beyond, sideways) - thickness / 2)


def _inside(distance: np.ndarray) -> np.ndarray:
    """1 within an edge (negative distances, in pixels), 0 outside, with a soft step between."""
    return 0.5 - 0.5 * np.tanh(distance / (2 * _EDGE))


def _around(offset: np.ndarray, extent: int) -> np.ndarray:
    """Signed distance on a torus, in -extent/2..extent/2."""
    return (offset + extent / 2) % extent - extent / 2


def _fraction(word: int) -> float:
    return word / 2**64


def _pick(choices, word: int) -> str:
    return tuple(choices)[word % len(choices)]


@dataclasses.dataclass(frozen=True)
class _Motion:
    on_torus: bool
    draw: Callable[[Stage, list[int]], tuple[Mover, ...]]
    place: Callable[[Stage, Mover, np.ndarray], tuple[np.ndarray, np.ndarray]]


MOTIONS = {
    "glide": _Motion(True, _draw_glide, _place_glide),
    "cross": _Motion(True, _draw_cross, _place_glide),
    "bounce": _Motion(False, _draw_bounce, _place_bounce),
    "rotate": _Motion(False, _draw_rotate, _place_rotate),
}
