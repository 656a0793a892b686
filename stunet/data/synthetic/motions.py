"""Draws clips of objects whose motion is known exactly, with true captions and positions.

In four motions, an object follows a closed path at constant speed (`steady_motions`). In four
others, its speed or its direction changes (`free_motions`).

Objects move along x alone if the canvas has fewer rows than two diameters of an object. A canvas
may have a single row.

Positions are (y, x) in pixels. Whole numbers are centres of pixels, and rows count downwards. A
torus wraps at `height` and `width`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stunet.data.spec import EncodeText
from stunet.data.synthetic import endless
from stunet.data.synthetic import free_motions as free
from stunet.data.synthetic import steady_motions as steady
from stunet.data.synthetic.drawing import render
from stunet.data.synthetic.movers import Mover, Placed
from stunet.data.synthetic.stage import Stage
from stunet.errors import UserError

# Random words for each clip, as many as the motion with the most random numbers needs.
_WORDS = 16


@dataclasses.dataclass(frozen=True)
class Motion:
    """Implements one motion.

    Attributes:
        draw: draws the objects of a clip from random words and the number of frames.
        place: returns positions and velocities [t, 2] of an object at phases [t].
        captions_tell: True if the caption names the direction of motion in all frames.
    """

    draw: Callable[[Stage, list[int], int], tuple[Mover, ...]]
    place: Callable[[Stage, Any, np.ndarray], Placed]
    captions_tell: bool = True


MOTIONS = {
    "glide": Motion(steady.draw_glide, steady.place_glide),
    "cross": Motion(steady.draw_cross, steady.place_glide),
    "bounce": Motion(steady.draw_bounce, steady.place_bounce),
    "rotate": Motion(steady.draw_rotate, steady.place_rotate),
    "fall": Motion(free.draw_fall, free.place_fall, captions_tell=False),
    "pendulum": Motion(free.draw_pendulum, free.place_pendulum, captions_tell=False),
    "wander": Motion(free.draw_wander, free.place_wander, captions_tell=False),
    "turn": Motion(free.draw_turn, free.place_turn, captions_tell=False),
}


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


def caption(movers: Sequence[Mover], with_speed: bool = False) -> str:
    """Describes a clip, as in `a disc gliding right, and a ring gliding left`.

    Args:
        movers: the objects of the clip.
        with_speed: True also says how fast each object moves, as in `a disc gliding right, fast`.
    """
    return ", and ".join(mover.phrase(with_speed) for mover in movers)


def place(
    stage: Stage, mover: Mover, frames: int
) -> tuple[Float[np.ndarray, "t 2"], Float[np.ndarray, "t 2"]]:
    """Returns an object's positions in pixels and velocities in pixels per frame; see `Truth`."""
    return MOTIONS[stage.motion].place(stage, mover, mover.phase + np.arange(frames) / mover.period)


class Motions:
    """Gives random access to clips that are rendered when they are read.

    Clip `i` depends on (seed, split, i) alone. Where an object `turn`s also depends on `frames`.

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
        caption_speed: bool = False,
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
            caption_speed: True lets captions say how fast each object moves.

        Raises:
            UserError: the split is unknown, or a value is out of range. Also raised if captions say
                how fast objects move, and speeds are not spread by octaves.
        """
        length = endless.length_of("motions", split, length)
        check = {"frames": (frames, 1), "channels": (channels, 1), "seed": (seed, 0)}
        endless.check_least("motions", check | {"length": (length, 1)})
        if caption_speed and not stage.octaves:
            raise UserError(
                "captions are to say how fast objects move, and all move at about the same speed; "
                "spread speeds by octaves"
            )
        self.split = split
        self.stage = stage
        self.frames = frames
        self.channels = channels
        self.seed = seed
        self.encode_text = encode_text
        self.length = length
        self.caption_speed = caption_speed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, Any]:
        truth = self.truth(i)
        grey = render(self.stage, [mover.shape for mover in truth.movers], truth.positions)
        words = caption(truth.movers, self.caption_speed)
        return endless.make_example(grey, words, self.channels, self.encode_text)

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
        words = endless.random_words(self.seed, self.split, i, self.length, _WORDS)
        return MOTIONS[self.stage.motion].draw(self.stage, words, self.frames)
