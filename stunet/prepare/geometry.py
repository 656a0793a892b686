"""Computes how pictures are turned, and their sizes as players show them."""

import dataclasses

import av
import numpy as np
from av.sidedata.sidedata import Type

from stunet.errors import UserError

# Formats whose viewers all show square pixels, whatever their headers say.
_SQUARE_PIXELS = ("gif",)

# The filters that show a picture as its display matrix asks, by the signs of that matrix's entries
# (0, 1, 3, 4): x' = m0 x + m3 y and y' = m1 x + m4 y, with y down. Four turns, and their mirrors.
_ORIENTATIONS: dict[tuple[int, int, int, int], tuple[tuple[str, dict[str, str]], ...]] = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, 1): (("hflip", {}),),
    (1, 0, 0, -1): (("vflip", {}),),
    (-1, 0, 0, -1): (("hflip", {}), ("vflip", {})),
    (0, 1, 1, 0): (("transpose", {"dir": "cclock_flip"}),),
    (0, 1, -1, 0): (("transpose", {"dir": "clock"}),),
    (0, -1, 1, 0): (("transpose", {"dir": "cclock"}),),
    (0, -1, -1, 0): (("transpose", {"dir": "clock_flip"}),),
}
UPRIGHT = (1, 0, 0, 1)
# Entries of a display matrix smaller than this share of the largest one count as 0: a turn of less
# than a degree is a rounding error.
_NEARLY_ZERO = 0.02

Orientation = tuple[int, int, int, int]


def orientation(frame: av.VideoFrame) -> Orientation:
    """Returns how players turn and mirror a picture.

    Returns:
        The signs of entries 0, 1, 3 and 4 of the picture's display matrix.

    Raises:
        UserError: the file states an angle that is not a multiple of 90 degrees.
    """
    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            entries = np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]].astype(float)
            near = np.abs(entries) > _NEARLY_ZERO * max(np.abs(entries).max(), 1)
            signs = tuple(int(sign) for sign in np.sign(entries) * near)
            if signs not in _ORIENTATIONS:
                raise UserError(
                    "its pictures are turned by an angle that is no multiple of 90 degrees"
                )
            return signs
    return UPRIGHT


def turn_filters(signs: Orientation) -> tuple[tuple[str, dict[str, str]], ...]:
    """Returns name and options of each filter that turns and mirrors a picture as players do.

    Args:
        signs: result of `orientation` for the picture.
    """
    return _ORIENTATIONS[signs]


def lies_down(signs: Orientation) -> bool:
    """Tells whether a video player turns a picture so that its rows become columns.

    Args:
        signs: result of `orientation` for the picture.
    """
    return signs[0] == 0


def pixel_aspect(container, stream) -> float:
    """Returns width divided by height of one pixel."""
    if container.format.name in _SQUARE_PIXELS:
        return 1.0
    return float(stream.sample_aspect_ratio or 1)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Describes pictures as they are stored, before players turn and stretch them.

    Attributes:
        height: rows as stored.
        width: columns as stored.
        aspect: width divided by height of one pixel.
        signs: how the pictures are turned; see `orientation`.
    """

    height: int
    width: int
    aspect: float
    signs: Orientation


def shown_size(stored: Stored) -> tuple[int, int]:
    """Returns (rows, columns) of a picture as players show it: upright, with square pixels."""
    size = stored.height, round(stored.width * stored.aspect)
    return size[::-1] if lies_down(stored.signs) else size


@dataclasses.dataclass(frozen=True)
class Window:
    """Names the part of a stored picture that is kept before anything else is done to it.

    Attributes:
        size: rows and columns of the pictures that the window is for. Others are kept whole.
        top: first row that is kept.
        left: first column that is kept.
        height: rows that are kept.
        width: columns that are kept.
    """

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


def whole(height: int, width: int) -> Window:
    """Returns the window that keeps all of a picture."""
    return Window((height, width), 0, 0, height, width)


@dataclasses.dataclass(frozen=True)
class Fit:
    """Says to which size a picture is scaled, and how much of its centre is kept.

    Attributes:
        rows: rows after scaling, of the upright picture.
        columns: columns after scaling.
        height: rows that are kept.
        width: columns that are kept.
    """

    rows: int
    columns: int
    height: int
    width: int


def covering(height: int, width: int, stored: Stored) -> Fit:
    """Returns the smallest size that covers height x width, of which the centre is kept.

    Scaling keeps the ratio of the picture's sides as players show it.

    Args:
        height: rows to cover.
        width: columns to cover.
        stored: how the picture is stored.
    """
    shape = stored.width * stored.aspect / stored.height
    shape = 1 / shape if lies_down(stored.signs) else shape
    rows, columns = max(height, round(width / shape)), max(width, round(height * shape))
    return Fit(rows, columns, height, width)


def at_most(side: int, stored: Stored) -> Fit:
    """Returns the size of a whole picture whose shorter side has at most `side` pixels.

    Both sides are even, as codecs need them. Small pictures are not enlarged.

    Args:
        side: pixels of the shorter side.
        stored: how the picture is stored.
    """
    size = shown_size(stored)
    scale = min(1.0, side / min(size))
    rows, columns = (max(2, 2 * round(length * scale / 2)) for length in size)
    return Fit(rows, columns, rows, columns)
