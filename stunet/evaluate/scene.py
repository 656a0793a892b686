"""Describes what is known about the motion in clips of a source."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stunet.data.sources import Cut, Source
from stunet.data.synthetic.motions import Motions, Stage
from stunet.data.synthetic.moving_digits import GREY, SPEEDS
from stunet.evaluate.digits import Asked, Drawing


@dataclasses.dataclass(frozen=True)
class Scene:
    """Holds what is known about the objects in a batch of clips.

    Attributes:
        stage: canvas and motion of objects that can be tracked; None if nothing is known.
        shapes: shapes of the objects of each clip; None if `stage` does not need them.
        truth: true positions [n, o, t, 2] of the objects; None if they are unknown, or if the
            network could not know the direction of motion.
        asked: what the captions of clips of one moving digit say; None for all other clips, and
            if no network could know it.
        look: look of moving digits, one of `digits.READABLE`.
    """

    stage: Stage | None = None
    shapes: Sequence[Sequence[str]] | None = None
    truth: np.ndarray | None = None
    asked: Asked | None = None
    look: str = GREY

    def cut(self, frames: int) -> "Scene":
        """Returns the scene of the first `frames` frames of the same clips."""
        truth = None if self.truth is None else self.truth[:, :, :frames]
        return dataclasses.replace(self, truth=truth)

    def as_json(self) -> dict[str, Any]:
        """Returns the scene as JSON values, without what captions say."""
        return {
            "stage": None if self.stage is None else dataclasses.asdict(self.stage),
            "shapes": None if self.shapes is None else [list(shapes) for shapes in self.shapes],
            "truth": None if self.truth is None else self.truth.tolist(),
        }


def scene_of(source: Source, indices: Sequence[int], *, with_truth: bool = True) -> Scene:
    """Returns what is known about the clips of a source at `indices`.

    Nothing is known about clips of real videos, clips with several digits or in a style, and clips
    that were sub-sampled in time. Nothing is known either if the source cuts each of its clips into
    two or more pieces.

    Args:
        source: source of the clips.
        indices: numbers of the clips.
        with_truth: True includes the true positions. Leave them out if neither captions nor
            keyframes give a network the direction of motion.
    """
    if isinstance(source, Cut) and source.pieces == 1:
        # The only piece is the source's clip without its last frames.
        source = source.source
    if isinstance(source, Motions):
        truths = [source.truth(i) for i in indices]
        shapes = [tuple(mover.shape for mover in truth.movers) for truth in truths]
        positions = np.stack([truth.positions for truth in truths])
        return Scene(source.stage, shapes, positions if with_truth else None)
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
        if not with_truth:
            return Scene(stage, look=source.look)
        digits = tuple(source.truth(i)[0] for i in indices)
        asked = Asked(drawing, digits, tuple(source.ground(i) for i in indices))
        return Scene(stage, None, _positions(asked, source.frames), asked, source.look)
    return Scene()


def _positions(asked: Asked, frames: int) -> np.ndarray:
    """Returns the positions [n, 1, t, 2] of digits, relative to each digit's first position."""
    steps = np.arange(frames)[:, None]
    velocities = np.array([digit.velocity for digit in asked.digits])
    return (velocities[:, None] * steps)[:, None] % [asked.drawing.height, asked.drawing.width]
