"""Measures how pictures look, from thumbnails that are small enough to cost little."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from stunet.prepare.timing import Break

# Rows or columns, whichever are fewer, to which pictures are shrunk at most.
_SIDE = 64
# Rows and columns of the grid from which hashes are made, and of the frequencies that they keep.
_GRID, _KEPT = 16, 8
# Equal parts of a shot's time, each of which has a hash of its own.
_PARTS = 4
# Bits in the hash of a shot that carry information. The mean brightness of each part carries none.
HASH_BITS = _PARTS * (_KEPT * _KEPT - 1)
# Decimal places that are kept. More would be noise.
_PLACES = 4
# Rows of the discrete cosine transform, in whole numbers, so that all machines agree on every bit.
_DCT = np.array(
    [
        [round(1024 * math.cos(math.pi * k * (2 * x + 1) / (2 * _GRID))) for x in range(_GRID)]
        for k in range(_KEPT)
    ],
    np.int64,
)


@dataclasses.dataclass(frozen=True)
class Look:
    """Describes one picture by its thumbnail.

    Attributes:
        change: mean absolute difference of brightness, 0 to 255, from the picture before. It is 0
            for the first picture after a break.
        step: estimate of how far the content has moved since the picture before, as a share of the
            picture's shorter side.
        brightness: mean brightness, 0 to 255.
        contrast: standard deviation of the brightness within the picture.
        grid: brightness in 16x16 equal parts of the picture.
    """

    change: float
    step: float
    brightness: float
    contrast: float
    grid: UInt8[np.ndarray, "16 16"]


@dataclasses.dataclass(frozen=True)
class Seen:
    """Holds a picture, the number of frames that show it, and how it looks."""

    picture: UInt8[np.ndarray, "h w 3"]
    times: int
    look: Look


def seen(entries: Iterable[tuple[np.ndarray, int] | Break]) -> Iterator[Seen | Break]:
    """Yields the entries of `stunet.prepare.decode.resampled`, pictures with their looks."""
    before = None
    for entry in entries:
        if isinstance(entry, Break):
            before = None
            yield entry
            continue
        picture, times = entry
        grey = Image.fromarray(picture).convert("L")
        small = grey.reduce(max(1, min(grey.size) // _SIDE))
        thumbnail = np.asarray(small, np.int16)
        yield Seen(picture, times, _look(small, thumbnail, before))
        before = thumbnail


def _look(small: Image.Image, thumbnail: np.ndarray, before: np.ndarray | None) -> Look:
    """Returns the look of a picture.

    What moves by v pixels changes the brightness at each place by v times the slope there. In a
    picture whose slopes have all directions equally, the mean change is v times half the mean
    of the slopes' absolute values along rows and columns together.
    """
    change = step = 0.0
    if before is not None and before.shape == thumbnail.shape:
        change = float(np.abs(thumbnail - before).mean())
        slopes = (np.abs(np.diff(thumbnail, axis=axis)).mean() for axis in (0, 1))
        # Slopes below one level are noise.
        step = 2 * change / max(1.0, float(sum(slopes))) / min(thumbnail.shape)
    # From sums of whole numbers, so that all machines agree.
    mean = float(thumbnail.mean())
    variance = float(np.square(thumbnail, dtype=np.int32).mean()) - mean**2
    grid = np.asarray(small.resize((_GRID, _GRID), Image.Resampling.BOX))
    return Look(change, step, mean, math.sqrt(max(0.0, variance)), grid)


@dataclasses.dataclass(frozen=True)
class Measures:
    """Describes one shot.

    Attributes:
        motion: estimate of how far the content moves in a second, in shorter sides of the picture.
        brightness: mean brightness, 0 to 255.
        contrast: mean over the pictures of the standard deviation of brightness.
        hash: perceptual hash, in hexadecimal. It has 256 bits, 64 for each quarter of the time.
    """

    motion: float
    brightness: float
    contrast: float
    hash: str


def measure(looks: Sequence[tuple[Look, bool]], fps: float) -> Measures:
    """Returns the measures of a shot.

    Args:
        looks: for each frame, the look of its picture, and whether the frame before shows another
            picture.
        fps: frames per second.
    """
    # The first picture is compared with one that is not in the shot.
    steps = sum(look.step for look, is_new in looks[1:] if is_new)
    return Measures(
        round(steps * fps / max(1, len(looks) - 1), _PLACES),
        round(sum(look.brightness for look, _ in looks) / len(looks), _PLACES),
        round(sum(look.contrast for look, _ in looks) / len(looks), _PLACES),
        _hash([look.grid for look, _ in looks]).hex(),
    )


def _hash(grids: Sequence[UInt8[np.ndarray, "16 16"]]) -> bytes:
    """Returns signs of the lowest frequencies of the mean picture in each quarter of the time."""
    quarters = []
    for quarter in range(_PARTS):
        begin = len(grids) * quarter // _PARTS
        end = max(begin + 1, len(grids) * (quarter + 1) // _PARTS)
        total: Int[np.ndarray, "16 16"] = np.sum(grids[begin:end], axis=0, dtype=np.int64)
        frequencies = _DCT @ total @ _DCT.T
        frequencies[0, 0] = 0
        quarters.append(frequencies > 0)
    return np.packbits(quarters).tobytes()
