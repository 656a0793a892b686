"""Decides which shots are dropped, from measures that the manifests hold.

Nothing is decoded for it. A shot that is dropped stays in its shard, so that another threshold
takes seconds.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from stunet.errors import UserError
from stunet.prepare.copies import earlier
from stunet.prepare.looks import HASH_BITS


@dataclasses.dataclass(frozen=True)
class Filters:
    """Holds the least value of each measure that a shot must have. 0 drops no shot.

    Attributes:
        min_motion: motion (`stunet.prepare.looks.Measures`).
        min_brightness: mean brightness, 0 to 255.
        min_contrast: mean standard deviation of brightness, 0 to 128.
        min_size: height or width, whichever is smaller, in pixels.
        min_difference: share of bits, 0 to 1, in which the perceptual hash differs from that of
            each earlier shot of another video.
    """

    min_motion: float = 0.0
    min_brightness: float = 0.0
    min_contrast: float = 0.0
    min_size: int = 0
    min_difference: float = 0.0


# Field of `Filters` -> why it drops a shot, and the largest threshold.
REASONS: dict[str, tuple[str, float]] = {
    "min_motion": ("too little motion", math.inf),
    "min_brightness": ("too dark", 255),
    "min_contrast": ("too flat", 128),
    "min_size": ("too small", math.inf),
    "min_difference": ("much like an earlier shot of another video", 1),
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """Holds the measures of all shots of a set, in order.

    Attributes:
        frames: number of pictures.
        height: rows of each picture.
        width: columns of each picture.
        motion: see `stunet.prepare.looks.Measures`, as for what follows.
        brightness: mean brightness.
        contrast: mean contrast.
        hash: perceptual hash.
        video: number of the file, equal for all stretches of one file.
    """

    frames: Int32[np.ndarray, "n"]
    height: Int32[np.ndarray, "n"]
    width: Int32[np.ndarray, "n"]
    motion: Float32[np.ndarray, "n"]
    brightness: Float32[np.ndarray, "n"]
    contrast: Float32[np.ndarray, "n"]
    hash: UInt8[np.ndarray, "n 32"]
    video: Int64[np.ndarray, "n"]


def check(filters: Filters, side: int) -> None:
    """Raises a UserError if a threshold is out of range.

    Args:
        filters: the thresholds.
        side: largest value of the shorter side of shots.
    """
    for name, (_, most) in REASONS.items():
        value = getattr(filters, name)
        if not (0 <= value <= most and math.isfinite(value)):
            limit = f"at most {most:g}" if math.isfinite(most) else "finite"
            raise UserError(f"{name} must be at least 0 and {limit}, not {value}")
    if filters.min_size > side:
        raise UserError(
            f"min_size is {filters.min_size}, and the shorter side of shots has at most {side} "
            "pixels; lower min_size or raise side"
        )


def decide(columns: Columns, filters: Filters) -> Int32[np.ndarray, "n"]:
    """Returns 0 for each shot that is kept, and otherwise 1 + the place of its reason in `REASONS`.

    The first reason that holds counts. The decision on a shot depends on the shots before it alone.
    Nearly equal shots are looked for among those that the other filters keep.
    """
    values = {
        "min_motion": columns.motion,
        "min_brightness": columns.brightness,
        "min_contrast": columns.contrast,
        "min_size": np.minimum(columns.height, columns.width),
    }
    dropped = np.zeros(len(columns.frames), np.int32)
    for place, name in enumerate(REASONS, 1):
        if name in values:
            dropped[(dropped == 0) & (values[name] < getattr(filters, name))] = place
        elif filters.min_difference:
            kept = np.flatnonzero(dropped == 0)
            bits = math.ceil(filters.min_difference * HASH_BITS)
            found = earlier(columns.hash[kept], columns.video[kept], bits)
            dropped[kept[found >= 0]] = place
    return dropped
