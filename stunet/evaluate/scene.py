"""Describes what is known about the motion in clips of a source."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stunet.data.sources import Cut, Source
from stunet.data.synthetic.motions import MOTIONS, Motions
from stunet.data.synthetic.movers import PACES, Mover
from stunet.data.synthetic.moving_digits import GREY, SPEEDS
from stunet.data.synthetic.stage import Stage
from stunet.evaluate.digits import Asked, Drawing


@dataclasses.dataclass(frozen=True)
class Scene:
    """Holds what is known about the objects in a batch of clips.

    Attributes:
        stage: canvas and motion of objects that can be tracked; None if nothing is known.
        shapes: shapes of the objects of each clip; None if `stage` does not need them.
        truth: true positions [n, o, t, 2] of the objects; None if they are unknown, or if the
            network could not know the direction of motion.
        factors: least and largest multiple [n, o, 2] of each object's true speed that the network
            was told; None if it was told the true speed, or if `truth` is None.
        asked: what the captions of clips of one moving digit say; None for all other clips, and
            if no network could know it.
        look: look of moving digits, one of `digits.READABLE`.
    """

    stage: Stage | None = None
    shapes: Sequence[Sequence[str]] | None = None
    truth: np.ndarray | None = None
    factors: np.ndarray | None = None
    asked: Asked | None = None
    look: str = GREY

    def cut(self, frames: int) -> "Scene":
        """Returns the scene of the first `frames` frames of the same clips."""
        truth = None if self.truth is None else self.truth[:, :, :frames]
        return dataclasses.replace(self, truth=truth)

    def as_json(self) -> dict[str, Any]:
        """Returns the scene as JSON values, without what captions say."""
        values = {
            "stage": None if self.stage is None else dataclasses.asdict(self.stage),
            "shapes": None if self.shapes is None else [list(shapes) for shapes in self.shapes],
            "truth": None if self.truth is None else self.truth.tolist(),
        }
        # Left out if None, so that measurements cached before factors existed stay valid.
        return values if self.factors is None else values | {"factors": self.factors.tolist()}


def scene_of(
    source: Source, indices: Sequence[int], *, captions: bool = True, keyframes: bool = True
) -> Scene:
    """Returns what is known about the clips of a source at `indices`.

    Nothing is known about clips of real videos, clips with several digits or in a style, and clips
    that were sub-sampled in time. Nothing is known either if the source cuts each of its clips into
    two or more pieces.

    Args:
        source: source of the clips.
        indices: numbers of the clips.
        captions: True if the network sees the captions of the clips. The truth is included if
            captions name the direction of motion. If speeds are spread by octaves, the network is
            told a range of speeds: the speeds that the caption's words stand for, or all speeds of
            the data if captions name no speed.
        keyframes: True if the network sees true keyframes of the clips. The truth is included.
    """
    if isinstance(source, Cut) and source.pieces == 1:
        # The only piece is the source's clip without its last frames.
        source = source.source
    if isinstance(source, Motions):
        truths = [source.truth(i) for i in indices]
        shapes = [tuple(mover.shape for mover in truth.movers) for truth in truths]
        if not (keyframes or (captions and MOTIONS[source.stage.motion].captions_tell)):
            return Scene(source.stage, shapes)
        factors = None
        if not keyframes and source.stage.octaves:
            factors = np.array([[_told(source, m) for m in truth.movers] for truth in truths])
        return Scene(source.stage, shapes, np.stack([t.positions for t in truths]), factors)
    if drawing := Drawing.of(source):
        slowest, fastest = min(SPEEDS.values()), max(SPEEDS.values())
        stage = Stage(
            "glide",
            source.height,
            source.width,
            size=float(min(source.digit_size, source.width / 2)),
            speed=source.speed_factor * (slowest + fastest) / 2,
            spread=(fastest - slowest) / (fastest + slowest),
        )
        if not (captions or keyframes):
            return Scene(stage, look=source.look)
        digits = tuple(source.truth(i)[0] for i in indices)
        asked = Asked(drawing, digits, tuple(source.ground(i) for i in indices))
        positions = _positions(asked, source.frames)
        return Scene(stage, truth=positions, asked=asked, look=source.look)
    return Scene()


def _told(source: Motions, mover: Mover) -> tuple[float, float]:
    """Returns the range of speeds that the caption leaves open, in multiples of the true speed."""
    ends = (0.0, 1.0)
    if source.caption_speed:
        ends = (mover.pace_bin / len(PACES), (mover.pace_bin + 1) / len(PACES))
    least, largest = (source.stage.factor(end) / source.stage.factor(mover.pace) for end in ends)
    return least, largest


def _positions(asked: Asked, frames: int) -> np.ndarray:
    """Returns the positions [n, 1, t, 2] of digits, relative to each digit's first position."""
    steps = np.arange(frames)[:, None]
    velocities = np.array([digit.velocity for digit in asked.digits])
    return (velocities[:, None] * steps)[:, None] % [asked.drawing.height, asked.drawing.width]
