"""Cuts clips along time: X-T and Y-T slices, and pictures of them (PNG).

An X-T slice shows one row of pixels over time, and a Y-T slice one column. An object that moves
steadily draws a straight slanted line. An object that jumps between frames draws a broken line.
"""

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from stunet import jsonfiles
from stunet.data.media import sheets
from stunet.data.media.sheets import Clips
from stunet.errors import UserError
from stunet.files import atomic

Clip = UInt8[np.ndarray, "t h w c"] | Float[np.ndarray, "t h w c"]
Slice = UInt8[np.ndarray, "t w c"] | Float[np.ndarray, "t w c"]

_MARK = (255, 64, 32)
# Name of the PNG text field that notes where the slices are.
_SLICES = "stunet slices"


def write_xt(
    path: str | Path,
    clips: Clips,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> None:
    """Writes a PNG that shows each clip's first frame and, beside it, a slice through time.

    The slice is a Y-T slice if the objects of the clip move up and down (`moves_vertically`), and
    an X-T slice otherwise. X runs right and y runs down, as in the frame. A dashed line on the
    frame marks the row or column that the slice shows.

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        captions: as for `sheets.contact_sheet`.
        columns: as for `sheets.contact_sheet`.
    """
    clips = sheets.to_uint8(clips)
    scale = sheets.scale(*clips.shape[2:4])
    cells, places = zip(*(_frame_and_slice(clip, scale) for clip in clips), strict=True)
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    cells = np.stack([_pad(cell, height, width) for cell in cells])
    (sheet,), corners = sheets.lay_out(cells[:, None], captions, columns)
    # `read_slices` needs to know where the slices are.
    noted = [
        dataclasses.asdict(place) | {"top": y + place.top, "left": x + place.left}
        for place, (y, x) in zip(places, corners, strict=True)
    ]
    text = PngInfo()
    text.add_text(_SLICES, json.dumps(noted))
    with atomic(path) as partial:
        Image.fromarray(sheet).save(partial, format="PNG", pnginfo=text)


def read_slices(png: bytes) -> list[tuple[Literal["x", "y"], UInt8[np.ndarray, "h w 3"]]]:
    """Reads the slices from a PNG that `write_xt` made, and shrinks them to their original size.

    Args:
        png: contents of the file.

    Returns:
        For each clip, the spatial axis of the slice ("x" or "y"), and the slice. Time runs down in
        an X-T slice and right in a Y-T slice. The list is empty if the PNG does not note where
        slices are.

    Raises:
        UserError: the PNG is damaged.
    """
    try:
        with Image.open(io.BytesIO(png)) as image:
            noted = image.info.get(_SLICES, "[]")
            sheet = np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises all kinds.
        raise UserError(f"the picture is damaged ({error})") from error
    places = jsonfiles.parse(noted, list[_Place], f"the text {_SLICES!r} of the picture")
    found = [(place.axis, place.cut(sheet)) for place in places]
    if not all(cut.size for _, cut in found):
        raise UserError(f"the text {_SLICES!r} of the picture is damaged: slices are outside of it")
    return found


@dataclasses.dataclass(frozen=True)
class _Place:
    """Locates a slice in a picture.

    Attributes:
        axis: the spatial axis that the slice shows.
        top: first row of the picture that shows the slice.
        left: first column of the picture that shows the slice.
        height: number of rows of the picture that show the slice.
        width: number of columns of the picture that show the slice.
        times_y: number of rows of the picture for each row of the slice.
        times_x: number of columns of the picture for each column of the slice.
    """

    axis: Literal["x", "y"]
    top: Annotated[int, msgspec.Meta(ge=0)]
    left: Annotated[int, msgspec.Meta(ge=0)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    times_y: Annotated[int, msgspec.Meta(ge=1)]
    times_x: Annotated[int, msgspec.Meta(ge=1)]

    def cut(self, sheet: np.ndarray) -> np.ndarray:
        """Cuts the slice out of the picture `sheet`, and shrinks it to its original size."""
        rows = slice(self.top, self.top + self.height, self.times_y)
        return sheet[rows, self.left : self.left + self.width : self.times_x]


def _frame_and_slice(clip: Clip, scale: int) -> tuple[UInt8[np.ndarray, "rows cols 3"], _Place]:
    """Draws a clip's first frame and its slice side by side, and labels the axes.

    Returns:
        The picture, and the place of the slice in the picture.
    """
    vertical = moves_vertically(clip)
    index = most_variable_column(clip) if vertical else most_variable_row(clip)
    frame = _enlarge(sheets.rgb(clip[0]), scale, scale)
    # The line is dashed, so that the pixels below it can still be seen.
    line = frame.swapaxes(0, 1) if vertical else frame
    line[index * scale + scale // 2, np.arange(line.shape[1]) % 8 < 4] = _MARK
    slice_ = sheets.rgb(yt_slice(clip, index) if vertical else xt_slice(clip, index))
    # Time is stretched by a whole number, to about the extent of the frame, or to the usual extent
    # if the frame is small.
    extent, frames = frame.shape[1 if vertical else 0], len(clip)
    stretch = max(1, round(max(extent, sheets.TARGET_HEIGHT) / frames))
    times = (scale, stretch) if vertical else (stretch, scale)
    slice_ = _enlarge(slice_, *times)
    height = sheets.LINE_HEIGHT + max(len(frame), len(slice_))
    left = frame.shape[1] + sheets.LINE_HEIGHT
    drawn = Image.new("RGB", (left + slice_.shape[1], height), sheets.PAPER)
    drawn.paste(Image.fromarray(frame), (0, sheets.LINE_HEIGHT))
    drawn.paste(Image.fromarray(slice_), (left, sheets.LINE_HEIGHT))
    _axis(drawn, (left, 0), slice_.shape[1], "time" if vertical else "x", "right")
    _axis(
        drawn,
        (frame.shape[1], sheets.LINE_HEIGHT),
        len(slice_),
        "y" if vertical else "time",
        "down",
    )
    place = _Place("y" if vertical else "x", sheets.LINE_HEIGHT, left, *slice_.shape[:2], *times)
    return np.asarray(drawn), place


def _axis(
    image: Image.Image,
    corner: tuple[int, int],
    extent: int,
    name: str,
    way: Literal["right", "down"],
) -> None:
    """Draws the name of an axis and an arrow.

    Args:
        image: picture to draw on.
        corner: (x, y) of the upper left corner of the drawing.
        extent: length of the axis in pixels.
        name: name of the axis.
        way: direction of the axis.
    """
    font = ImageFont.load_default(sheets.FONT_SIZE)
    strip = Image.new("RGB", (extent, sheets.LINE_HEIGHT), sheets.PAPER)
    draw, middle = ImageDraw.Draw(strip), sheets.LINE_HEIGHT // 2
    draw.text((2, middle), name, sheets.INK, font, "lm")
    begin = 2 + math.ceil(font.getlength(name)) + 4
    end = min(begin + 24, extent - 2)
    if end - begin > 8:
        draw.line([(begin, middle), (end, middle)], sheets.INK)
        draw.line([(end - 4, middle - 4), (end, middle), (end - 4, middle + 4)], sheets.INK)
    image.paste(strip if way == "right" else strip.transpose(Image.Transpose.ROTATE_270), corner)


def xt_slice(clip: Clip, row: int | None = None) -> Slice:
    """Returns one row of pixels over all frames: time runs down, x runs across.

    Args:
        clip: a clip with values of any range.
        row: number of the row, 0 at the top; None takes the row that `most_variable_row` picks.
    """
    return clip[:, most_variable_row(clip) if row is None else row]


def yt_slice(clip: Clip, column: int | None = None) -> np.ndarray:
    """Returns one column of pixels over all frames, `[h, t, c]`: y runs down, time runs across.

    Args:
        clip: a clip with values of any range.
        column: number of the column, 0 at the left; None takes the column that
            `most_variable_column` picks.
    """
    column = most_variable_column(clip) if column is None else column
    return clip[:, :, column].swapaxes(0, 1)


def most_variable_row(clip: Clip) -> int:
    """Returns the row whose pixels vary most over time (variance summed over x and colours)."""
    return int(clip.astype(np.float32).var(axis=0).sum(axis=(1, 2)).argmax())


def most_variable_column(clip: Clip) -> int:
    """Returns the column whose pixels vary most over time (variance summed over y and colours)."""
    return int(clip.astype(np.float32).var(axis=0).sum(axis=(0, 2)).argmax())


def moves_vertically(clip: Clip) -> bool:
    """Tells whether the objects of a clip move up and down rather than left and right.

    When an object moves left or right, pixels change in the same rows at all times, but the columns
    that change differ from frame to frame. The function therefore computes, for each frame, the
    share of the frame's change that lies in each row and in each column. The motion is vertical if
    the shares of the rows vary more over time than the shares of the columns. In a picture, nothing
    moves.
    """
    if len(clip) == 1:
        return False
    light = clip.astype(np.float32).mean(axis=-1)
    change = np.abs(np.diff(light, axis=0))
    shares = change / np.maximum(change.sum(axis=(1, 2), keepdims=True), 1e-9)
    of_rows, of_columns = (shares.sum(axis=axis).var(axis=0).sum() for axis in (2, 1))
    return bool(of_rows > of_columns)


def _enlarge(image: np.ndarray, times_y: int, times_x: int) -> np.ndarray:
    return image.repeat(times_y, axis=0).repeat(times_x, axis=1)


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pads an image with white below and to the right."""
    padded = np.full((height, width, 3), sheets.PAPER, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
