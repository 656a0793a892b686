"""Describes what is known about the motion in clips of a source."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stunet.data.sources import Cut, Source
from stunet.data.synthetic.motions import Motions, Stage
from stunet.data.synthetic.moving_digits import GREY, SPEEDS, MovingDigits


@dataclasses.dataclass(frozen=True)
class Scene:
    """Holds what is known about the objects in a batch of clips.

    Attributes:
        stage: canvas and motion of objects that can be tracked; None if nothing is known.
        shapes: shapes of the objects of each clip; None if `stage` does not need them.
        truth: true positions [n, o, t, 2] of the objects; None if they are unknown, or if the
            network could not know the direction of motion.
    """

    stage: Stage | None = None
    shapes: Sequence[Sequence[str]] | None = None
    truth: np.ndarray | None = None

    def cut(self, frames: int) -> "Scene":
        """Returns the scene of the first `frames` frames of the same clips."""
        truth = None if self.truth is None else self.truth[:, :, :frames]
        return dataclasses.replace(self, truth=truth)

    def as_json(self) -> dict[str, Any]:
        """Returns the scene as JSON values."""
        return {
            "stage": None if self.stage is None else dataclasses.asdict(self.stage),
            "shapes": None if self.shapes is None else [list(shapes) for shapes in self.shapes],
            "truth": None if self.truth is None else self.truth.tolist(),
        }


def scene_of(source: Source, indices: Sequence[int], *, with_truth: bool = True) -> Scene:
    """Returns what is known about the clips of a source at `indices`.

    Nothing is known about clips of real videos, clips with several digits or with digits in colour,
    and clips that were sub-sampled in time. Nothing is known either if the source cuts each of its
    clips into two or more pieces.

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
    if isinstance(source, MovingDigits) and source.num_digits == 1 and source.look == GREY:
        slowest, fastest = min(SPEEDS.values()), max(SPEEDS.values())
        stage = Stage(
            "glide",
            source.height,
            source.width,
            size=float(min(source.digit_size, source.width / 2)),
            speed=source.speed_factor * (slowest + fastest) / 2,
            spread=(fastest - slowest) / (fastest + slowest),
        )
        return Scene(stage, truth=_digit_positions(source, indices) if with_truth else None)
    return Scene()


def _digit_positions(source: MovingDigits, indices: Sequence[int]) -> np.ndarray:
    """Returns the positions [n, 1, t, 2] of digits, relative to each digit's first position."""
    frames = np.arange(source.frames)[:, None]
    velocities = np.array([source.truth(i)[0].velocity for i in indices])
    return (velocities[:, None] * frames)[:, None] % [source.height, source.width]
