"""Lays clips out in a grid, each with its caption below."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

Clips = UInt8[np.ndarray, "n t h w c"] | Float[np.ndarray, "n t h w c"]

PAPER = (255, 255, 255)
INK = (40, 40, 40)
FONT_SIZE = 14
LINE_HEIGHT = 18
_GAP = 8
_MAX_LINES = 4
# Small clips are enlarged to about this height, so that single pixels can be seen and several clips
# fit on a screen. Clips of a few rows are enlarged to about this width.
TARGET_HEIGHT = 192
_TARGET_WIDTH = 384


def to_uint8(clips: np.ndarray) -> np.ndarray:
    """Maps floats in -1..1 to uint8 0..255, rounded and clipped. Returns uint8 arrays unchanged."""
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
    """Lays clips out in an animated grid, each with its caption below.

    Args:
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        captions: one text for each clip. A text is wrapped to the clip's width, and shortened to
            four lines.
        columns: number of clips in each row of the grid. None makes the sheet about one and a half
            times as wide as high.
        upscale: factor by which clips are enlarged, by repeating pixels. None enlarges small clips
            until they are about 192 pixels high or about 384 pixels wide, whichever is reached
            first.

    Returns:
        The frames of the sheet. A single clip without caption has no margin. With `upscale=1`, its
        sheet therefore equals the clip.
    """
    clips = rgb(clips)
    if upscale is None:
        upscale = scale(*clips.shape[2:4])
    cells = clips.repeat(upscale, axis=2).repeat(upscale, axis=3)
    return lay_out(cells, captions, columns)[0]


def scale(height: int, width: int) -> int:
    """Returns the factor by which clips of this height and width are enlarged by default."""
    return max(1, round(min(TARGET_HEIGHT / height, _TARGET_WIDTH / width)))


def rgb(images: np.ndarray) -> np.ndarray:
    """Converts float (-1..1) or uint8 images of one or three channels to uint8 RGB."""
    images = to_uint8(images)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def lay_out(
    cells: np.ndarray, captions: Sequence[str] | None, columns: int | None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places n clips [n, t, h, w, 3] in a grid, each with its caption below.

    Returns:
        The frames [t, rows, cols, 3], and (y, x) of each clip's upper left corner in the frames.
    """
    n, frames, height, width, _ = cells.shape
    if captions is not None and len(captions) != n:
        raise ValueError(f"{len(captions)} captions for {n} clips")
    captions = captions if captions and any(captions) else None
    margin = _GAP if n > 1 or captions else 0
    # In a narrow cell a caption would break into single words.
    cell_width = max(width, 10 * FONT_SIZE) if captions else width
    font = ImageFont.load_default(FONT_SIZE)
    texts = [_wrap(text, font, cell_width) for text in captions] if captions else [[]] * n
    lines = max(len(text) for text in texts)
    cell_height = height + (lines * LINE_HEIGHT + _GAP // 2 if lines else 0)
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
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    corners = []
    for i, text in enumerate(texts):
        row, column = divmod(i, columns)
        y = margin + row * (cell_height + _GAP)
        x = margin + column * (cell_width + _GAP)
        corners.append((y, x + (cell_width - width) // 2))
        for j, line in enumerate(text):
            draw.text((x, y + height + _GAP // 2 + j * LINE_HEIGHT), line, INK, font)
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
