"""Writes clips as files for people: animated contact sheets (GIF, MP4) and X-T slices (PNG).

An X-T slice shows one row of pixels over time, and a Y-T slice one column. An object that moves
steadily draws a straight slanted line. An object that jumps between frames draws a broken line.
"""

import dataclasses
import io
import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import av
import msgspec
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from stunet import jsonfiles
from stunet.files import atomic

Clips = UInt8[np.ndarray, "n t h w c"] | Float[np.ndarray, "n t h w c"]
Clip = UInt8[np.ndarray, "t h w c"] | Float[np.ndarray, "t h w c"]
Slice = UInt8[np.ndarray, "t w c"] | Float[np.ndarray, "t w c"]

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_MARK = (255, 64, 32)
_GAP = 8
_FONT_SIZE = 14
_LINE_HEIGHT = 18
_MAX_LINES = 4
# Small clips are enlarged to about this height, so that single pixels can be seen and several clips
# fit on a screen. Clips of a few rows are enlarged to about this width.
_TARGET_HEIGHT = 192
_TARGET_WIDTH = 384
# Viewers slow down a GIF whose frames last less than 20 ms.
_MAX_GIF_FPS = 50
# Name of the PNG text field that notes where the slices are.
_SLICES = "stunet slices"


def to_uint8(clips: np.ndarray) -> np.ndarray:
    """Maps floats in -1..1 to 0..255, rounded and clipped; uint8 passes unchanged."""
    if clips.dtype == np.uint8:
        return clips
    scaled = (clips.astype(np.float32) + 1) * 127.5
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def contact_sheet(
    clips: Clips,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    upscale: int | None = None,
) -> UInt8[np.ndarray, "t rows cols 3"]:
    """Lays n clips out in an animated grid, each with its caption below.

    Args:
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        captions: one text for each clip, wrapped to the clip's width; four lines at most.
        columns: clips in each row; None gives the sheet an aspect of about 3:2.
        upscale: how often each pixel is repeated in either direction. None enlarges small clips
            until they are about 192 pixels high or about 384 pixels wide, whichever is reached
            first.

    Returns:
        The frames of the sheet. A single clip without caption has no margin, so that with
        `upscale=1` the sheet is the clip.
    """
    clips = _rgb(clips)
    if upscale is None:
        upscale = _scale(*clips.shape[2:4])
    cells = clips.repeat(upscale, axis=2).repeat(upscale, axis=3)
    return _lay_out(cells, captions, columns)[0]


def write_gif(
    path: str | Path,
    clips: Clips,
    fps: float | int,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> None:
    """Writes the contact sheet as a GIF that repeats forever.

    GIF counts in hundredths of a second. The lengths of frames alternate, between 60 and 70 ms for
    example, so that no frame begins more than 5 ms early or late. Above 50 frames per second some
    frames are left out. All frames share one palette of 256 colours, so that colours do not
    flicker.

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        fps: frames per second.
        captions: as for `contact_sheet`.
        columns: as for `contact_sheet`.
    """
    frames = contact_sheet(clips, captions, columns=columns)
    step = math.ceil(fps / _MAX_GIF_FPS)
    # The last frame kept lasts until the end of the clip.
    kept = range(0, max(1, len(frames) - step + 1), step)
    starts = [round(100 * i / fps) for i in [*kept, len(frames)]]
    durations = [10 * (end - start) for start, end in itertools.pairwise(starts)]
    frames = frames[kept]
    palette = _palette(frames)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    with atomic(path) as partial:
        images[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            optimize=False,
        )


def write_mp4(
    path: str | Path,
    clips: Clips,
    fps: float | int,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    upscale: int | None = None,
    crf: int = 18,
) -> None:
    """Writes the contact sheet as H.264 video (yuv420p, which every player reads).

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        fps: frames per second.
        captions: as for `contact_sheet`.
        columns: as for `contact_sheet`.
        upscale: as for `contact_sheet`. An odd height or width grows by one pixel.
        crf: quality setting of libx264, from 0 (lossless) to 51; 18 looks like the original.
    """
    frames = contact_sheet(clips, captions, columns=columns, upscale=upscale)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rate = Fraction(fps).limit_denominator(10**6)
    with atomic(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf)}
        # If the file does not state its colour matrix, players guess it from the picture's size.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation="AREA",
            )
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_xt(
    path: str | Path,
    clips: Clips,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> None:
    """Writes a PNG that shows each clip's first frame and, beside it, a slice through time.

    The slice is an X-T slice, or a Y-T slice for a clip that moves up and down
    (`moves_vertically`). X runs right and y runs down, as in the frame. A dashed line on the frame
    marks the row or column that the slice shows.

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        captions: as for `contact_sheet`.
        columns: as for `contact_sheet`.
    """
    clips = to_uint8(clips)
    scale = _scale(*clips.shape[2:4])
    cells, places = zip(*(_frame_and_slice(clip, scale) for clip in clips), strict=True)
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    cells = np.stack([_pad(cell, height, width) for cell in cells])
    (sheet,), corners = _lay_out(cells[:, None], captions, columns)
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
    """Reads the slices from a PNG that `write_xt` made, without repeated pixels.

    Args:
        png: contents of the file.

    Returns:
        For each clip, the axis of space that its slice shows, and the slice. Time runs down in an
        X-T slice and right in a Y-T slice. The list is empty for a PNG that does not note where its
        slices are.
    """
    with Image.open(io.BytesIO(png)) as image:
        noted = image.info.get(_SLICES, "[]")
        places = jsonfiles.parse(noted, list[_Place], f"the text {_SLICES!r} of a picture")
        sheet = np.asarray(image.convert("RGB"))
    return [(place.axis, place.cut(sheet)) for place in places]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Locates a slice in a picture.

    Attributes:
        axis: the axis of space that the slice shows.
        top: first row of the slice in the picture.
        left: first column of the slice in the picture.
        height: rows of the slice in the picture.
        width: columns of the slice in the picture.
        times_y: how often each row of the slice is repeated.
        times_x: how often each column of the slice is repeated.
    """

    axis: Literal["x", "y"]
    top: Annotated[int, msgspec.Meta(ge=0)]
    left: Annotated[int, msgspec.Meta(ge=0)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    times_y: Annotated[int, msgspec.Meta(ge=1)]
    times_x: Annotated[int, msgspec.Meta(ge=1)]

    def cut(self, sheet: np.ndarray) -> np.ndarray:
        """Returns the slice that is in the picture `sheet`, with each repeated pixel once."""
        rows = slice(self.top, self.top + self.height, self.times_y)
        return sheet[rows, self.left : self.left + self.width : self.times_x]


def _frame_and_slice(clip: Clip, scale: int) -> tuple[UInt8[np.ndarray, "rows cols 3"], _Place]:
    """Draws a clip's first frame and its slice side by side, with the axes named.

    Returns:
        The picture, and the place of the slice in it.
    """
    vertical = moves_vertically(clip)
    index = most_variable_column(clip) if vertical else most_variable_row(clip)
    frame = _enlarge(_rgb(clip[0]), scale, scale)
    # The line is dashed, so that the pixels below it can still be seen.
    line = frame.swapaxes(0, 1) if vertical else frame
    line[index * scale + scale // 2, np.arange(line.shape[1]) % 8 < 4] = _MARK
    slice_ = _rgb(yt_slice(clip, index) if vertical else xt_slice(clip, index))
    # Time is stretched by a whole number, to about the extent of the frame, or to the usual extent
    # if the frame is small.
    extent, frames = frame.shape[1 if vertical else 0], len(clip)
    stretch = max(1, round(max(extent, _TARGET_HEIGHT) / frames))
    times = (scale, stretch) if vertical else (stretch, scale)
    slice_ = _enlarge(slice_, *times)
    height = _LINE_HEIGHT + max(len(frame), len(slice_))
    left = frame.shape[1] + _LINE_HEIGHT
    drawn = Image.new("RGB", (left + slice_.shape[1], height), _PAPER)
    drawn.paste(Image.fromarray(frame), (0, _LINE_HEIGHT))
    drawn.paste(Image.fromarray(slice_), (left, _LINE_HEIGHT))
    _axis(drawn, (left, 0), slice_.shape[1], "time" if vertical else "x", "right")
    _axis(drawn, (frame.shape[1], _LINE_HEIGHT), len(slice_), "y" if vertical else "time", "down")
    place = _Place("y" if vertical else "x", _LINE_HEIGHT, left, *slice_.shape[:2], *times)
    return np.asarray(drawn), place


def _axis(
    image: Image.Image,
    corner: tuple[int, int],
    extent: int,
    name: str,
    way: Literal["right", "down"],
) -> None:
    """Writes an axis's name and an arrow in a strip of `_LINE_HEIGHT` pixels by `extent`."""
    font = ImageFont.load_default(_FONT_SIZE)
    strip = Image.new("RGB", (extent, _LINE_HEIGHT), _PAPER)
    draw, middle = ImageDraw.Draw(strip), _LINE_HEIGHT // 2
    draw.text((2, middle), name, _INK, font, "lm")
    begin = 2 + math.ceil(font.getlength(name)) + 4
    end = min(begin + 24, extent - 2)
    if end - begin > 8:
        draw.line([(begin, middle), (end, middle)], _INK)
        draw.line([(end - 4, middle - 4), (end, middle), (end - 4, middle + 4)], _INK)
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
    """Tells whether a clip moves up and down rather than left and right.

    When an object moves left or right, pixels change in the same rows at all times, but the columns
    that change differ from frame to frame. The function therefore computes, for each frame, the
    share of all change that lies in each row and in each column. The motion is vertical if the
    shares of the rows vary more over time than those of the columns.
    """
    light = clip.astype(np.float32).mean(axis=-1)
    change = np.abs(np.diff(light, axis=0))
    shares = change / np.maximum(change.sum(axis=(1, 2), keepdims=True), 1e-9)
    of_rows, of_columns = (shares.sum(axis=axis).var(axis=0).sum() for axis in (2, 1))
    return bool(of_rows > of_columns)


def _scale(height: int, width: int) -> int:
    """Returns the default of `upscale`: how often each pixel is repeated in either direction."""
    return max(1, round(min(_TARGET_HEIGHT / height, _TARGET_WIDTH / width)))


def _rgb(images: np.ndarray) -> np.ndarray:
    """Converts float (-1..1) or uint8 images of one or three channels to uint8 RGB."""
    images = to_uint8(images)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _enlarge(image: np.ndarray, times_y: int, times_x: int) -> np.ndarray:
    return image.repeat(times_y, axis=0).repeat(times_x, axis=1)


def _pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pads an image with white below and to the right."""
    padded = np.full((height, width, 3), _PAPER, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def _lay_out(
    cells: np.ndarray, captions: Sequence[str] | None, columns: int | None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places cells [n, t, h, w, 3] in a grid, captions below.

    Returns:
        The frames [t, rows, cols, 3], and the upper left corner (y, x) of each cell in them.
    """
    n, frames, height, width, _ = cells.shape
    if captions is not None and len(captions) != n:
        raise ValueError(f"{len(captions)} captions for {n} clips")
    captions = captions if captions and any(captions) else None
    margin = _GAP if n > 1 or captions else 0
    # In a narrow cell a caption would break into single words.
    cell_width = max(width, 10 * _FONT_SIZE) if captions else width
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_wrap(text, font, cell_width) for text in captions] if captions else [[]] * n
    lines = max(len(text) for text in texts)
    cell_height = height + (lines * _LINE_HEIGHT + _GAP // 2 if lines else 0)
    if columns is None:
        # An aspect of about 3:2 means columns * cell_width = 1.5 * rows * cell_height.
        columns = min(n, max(1, round(math.sqrt(1.5 * n * cell_height / cell_width))))
        columns = math.ceil(n / math.ceil(n / columns))  # Fills the last row as far as possible.
    rows = math.ceil(n / columns)
    sheet = Image.new(
        "RGB",
        (
            columns * cell_width + (columns - 1) * _GAP + 2 * margin,
            rows * cell_height + (rows - 1) * _GAP + 2 * margin,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    corners = []
    for i, text in enumerate(texts):
        row, column = divmod(i, columns)
        y = margin + row * (cell_height + _GAP)
        x = margin + column * (cell_width + _GAP)
        corners.append((y, x + (cell_width - width) // 2))
        for j, line in enumerate(text):
            draw.text((x, y + height + _GAP // 2 + j * _LINE_HEIGHT), line, _INK, font)
    animated = np.repeat(np.asarray(sheet)[None], frames, axis=0)
    for cell, (y, x) in zip(cells, corners, strict=True):
        animated[:, y : y + height, x : x + width] = cell
    return animated, corners


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels, and shortens a long text with "…"."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".lstrip()
        if line and not _fits(longer, font, width):
            lines.append(line)
            line = word
        else:
            line = longer
        while not _fits(line, font, width):
            # The word alone is too long.
            fits = next(n for n in range(len(line) - 1, 0, -1) if _fits(line[:n], font, width))
            lines.append(line[:fits])
            line = line[fits:]
        if len(lines) > _MAX_LINES:
            break
    lines += [line] if line else []
    if len(lines) > _MAX_LINES:
        last = lines[_MAX_LINES - 1]
        while last and not _fits(last + "…", font, width):
            last = last[:-1]
        lines[_MAX_LINES - 1 :] = [last.rstrip() + "…"]
    return lines


def _fits(text: str, font: ImageFont.FreeTypeFont, width: int) -> bool:
    return len(text) == 1 or font.getlength(text) <= width


def _palette(frames: np.ndarray) -> Image.Image:
    """Chooses a palette of 256 colours for all frames by looking at 16 frames or fewer."""
    chosen = frames[:: math.ceil(len(frames) / 16)]
    # Octree is by far the fastest of Pillow's methods, and gives the truest colours here.
    return Image.fromarray(chosen.reshape(-1, *chosen.shape[2:])).quantize(
        256, method=Image.Quantize.FASTOCTREE
    )
