"""What is known of the clips of a source: what moves in them, and how."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stunet.data.sources import Cut, Source
from stunet.data.synthetic.motions import Motions, Stage
from stunet.data.synthetic.moving_digits import SPEEDS, MovingDigits


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is known of the clips of a source, for `metrics.measure`."""

    stage: Stage | None = None
    shapes: Sequence[Sequence[str]] | None = None
    truth: np.ndarray | None = None

    def cut(self, frames: int) -> "Scene":
        """Of the first frames of the same clips."""
        truth = None if self.truth is None else self.truth[:, :, :frames]
        return dataclasses.replace(self, truth=truth)

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "stage": None if self.stage is None else dataclasses.asdict(self.stage),
            "shapes": None if self.shapes is None else [list(shapes) for shapes in self.shapes],
            "truth": None if self.truth is None else self.truth.tolist(),
        }


def scene_of(source: Source, indices: Sequence[int], *, told: bool = True) -> Scene:
    """What moves in these clips; nothing is known of videos, of several digits, of clips that are
    sub-sampled in time, or of later pieces of a clip.

    Args:
        source: where the clips are from.
        indices: which ones.
        told: whether whoever sampled was told, by captions or keyframes, which way objects move.
    """
    if isinstance(source, Cut) and source.pieces == 1:
        # The same clips, less a few last frames.
        source = source.source
    if isinstance(source, Motions):
        truths = [source.truth(i) for i in indices]
        shapes = [tuple(mover.shape for mover in truth.movers) for truth in truths]
        truth = np.stack([truth.positions for truth in truths])
        return Scene(source.stage, shapes, truth if told else None)
    if isinstance(source, MovingDigits) and source.num_digits == 1:
        slowest, fastest = min(SPEEDS.values()), max(SPEEDS.values())
        stage = Stage(
            "glide",
            source.height,
            source.width,
            size=float(min(source.digit_size, source.width / 2)),
            speed=source.speed_factor * (slowest + fastest) / 2,
            spread=(fastest - slowest) / (fastest + slowest),
        )
        return Scene(stage, truth=_digits_gone(source, indices) if told else None)
    return Scene()


def _digits_gone(source: MovingDigits, indices: Sequence[int]) -> np.ndarray:
    """[n, 1, t, 2]: where digits are, from where each begins."""
    frames = np.arange(source.frames)[:, None]
    velocities = np.array([source.truth(i)[0].velocity for i in indices])
    return (velocities[:, None] * frames)[:, None] % [source.height, source.width]
