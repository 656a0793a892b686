"""Draws the figures of benchmarks: panels of curves, and rows of small pictures, as PNG.

Colours are those of the report's pages. Coordinates are pixels of the finished figure; everything
is drawn three times as large and then shrunk.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stunet.data.media import to_uint8
from stunet.files import atomic
from stunet.report.page import INK, RULE, SOFT
from stunet.report.page import LIGHT as COLOURS

__all__ = ["COLOURS", "INK", "SOFT", "Curve", "Level", "Panel", "Sheet", "ticks"]

# Sizes of letters: of the title, of what stands beside pictures, and of axes.
TITLE, TEXT, AXIS = 19, 13, 12
_FINE = 3


@dataclasses.dataclass(frozen=True)
class Curve:
    """Means over x, with the ends of their intervals.

    Attributes:
        colour: colour as "#rrggbb".
        x: places on the horizontal axis, ascending.
        y: mean at each x.
        low: lower end of the interval at each x.
        high: upper end of the interval at each x.
        dots: mark each mean with a dot.
    """

    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    dots: bool = True


@dataclasses.dataclass(frozen=True)
class Level:
    """A value that does not depend on x, drawn as a dashed line.

    Attributes:
        colour: colour as "#rrggbb".
        y: the value.
        low: lower end of its interval; None for no interval.
        high: upper end of its interval; None for no interval.
    """

    colour: str
    y: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """What a chart shows.

    Attributes:
        title: text above the chart.
        x_label: text below the chart.
        x: marked places on the horizontal axis, and what stands there.
        y: marked places on the vertical axis, and what stands there. The axis ends at the lowest
            and at the highest.
        curves: curves of the chart.
        levels: dashed lines of the chart.
    """

    title: str
    x_label: str
    x: Mapping[float, str]
    y: Mapping[float, str]
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()


def ticks(most: float, step: float) -> dict[float, str]:
    """Returns marked places from 0 to the first multiple of `step` that is not below `most`."""
    count = int(np.ceil(most / step - 1e-9))
    return {round(k * step, 9): f"{k * step:g}" for k in range(count + 1)}


class Sheet:
    """White paper to draw on.

    Args:
        width: pixels from left to right.
        height: pixels from top to bottom.
    """

    def __init__(self, width: int, height: int):
        self._size = width, height
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), "white")

    def title(self, words: str, note: str) -> None:
        """Writes the title of the figure in the upper left corner, and a note below it."""
        self.text(20, 14, words, TITLE)
        self.text(20, 40, note, TEXT, SOFT)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: int = TEXT,
        colour: str = INK,
        anchor: str = "la",
    ) -> None:
        """Writes words whose `anchor`, as Pillow names it, is at (x, y)."""
        font = ImageFont.load_default(size * _FINE)
        self._draw().text((x * _FINE, y * _FINE), words, colour, font, anchor)

    def picture(self, x: int, y: int, pixels: np.ndarray, times: int) -> None:
        """Places a picture with its upper left corner at (x, y).

        Args:
            x: pixels from the left.
            y: pixels from the top.
            pixels: `[h, w, 1 or 3]`, float in -1..1 or uint8.
            times: width and height of each pixel of the picture.
        """
        pixels = to_uint8(pixels)
        image = Image.fromarray(np.repeat(pixels, 4 - pixels.shape[-1], -1)[..., :3])
        size = image.width * times * _FINE, image.height * times * _FINE
        self._image.paste(image.resize(size, Image.Resampling.NEAREST), (x * _FINE, y * _FINE))

    def axes(self, x: float, y: float, across: str, down: str) -> None:
        """Names the axes of a picture whose upper left corner is at (x, y), with arrows."""
        self.text(x, y - 4, across, AXIS, SOFT, "ls")
        begin = x + ImageFont.load_default(AXIS).getlength(across) + 5
        self._arrow([(begin, y - 8), (begin + 16, y - 8)])
        strip = Image.new("RGB", (60 * _FINE, 15 * _FINE), "white")
        font = ImageFont.load_default(AXIS * _FINE)
        ImageDraw.Draw(strip).text((0, 7 * _FINE), down, SOFT, font, "lm")
        turned = strip.transpose(Image.Transpose.ROTATE_270)
        self._image.paste(turned, (round((x - 17) * _FINE), round(y * _FINE)))
        begin = y + ImageFont.load_default(AXIS).getlength(down) + 5
        self._arrow([(x - 9.5, begin), (x - 9.5, begin + 16)])

    def panel(self, left: int, top: int, width: int, height: int, panel: Panel) -> None:
        """Draws a chart whose axes span this rectangle; its texts stand around the rectangle."""
        lowest, highest = min(panel.y), max(panel.y)
        first, last = min(panel.x), max(panel.x)
        # A single x stands at the left.
        span = (last - first) or 1

        def at(x: float, y: float) -> tuple[float, float]:
            x = left + width * (0.04 + 0.92 * (x - first) / span)
            return x, top + height * (1 - (y - lowest) / (highest - lowest))

        self.text(left, top - 26, panel.title, 15)
        for y, name in panel.y.items():
            _, row = at(first, y)
            self._line([(left, row), (left + width, row)], RULE)
            self.text(left - 6, row, name, AXIS, SOFT, "rm")
        for x, name in panel.x.items():
            self.text(at(x, 0)[0], top + height + 6, name, AXIS, SOFT, "ma")
        self.text(left + width / 2, top + height + 24, panel.x_label, AXIS, SOFT, "ma")
        for level in panel.levels:
            ends = left, left + width
            if level.low is not None:
                low, high = at(first, level.low)[1], at(first, level.high)[1]
                corners = [(ends[0], high), (ends[1], high), (ends[1], low), (ends[0], low)]
                self._band(corners, level.colour)
            _, row = at(first, level.y)
            self._line([(ends[0], row), (ends[1], row)], level.colour, 1.4, dash=6)
        for curve in panel.curves:
            there = [at(*point) for point in zip(curve.x, curve.high, strict=True)]
            back = [at(*point) for point in zip(curve.x, curve.low, strict=True)]
            self._band(there + back[::-1], curve.colour)
            points = [at(*point) for point in zip(curve.x, curve.y, strict=True)]
            self._line(points, curve.colour, 2.2)
            for x, y in points if curve.dots else ():
                self._dot(x, y, 3.6, curve.colour)

    def legend(self, x: float, y: float, names: Mapping[str, str]) -> None:
        """Writes names after dots of their colours, in a row."""
        for name, colour in names.items():
            self._dot(x + 5, y, 5, colour)
            self.text(x + 15, y, name, TEXT, INK, "lm")
            x += 36 + ImageFont.load_default(TEXT).getlength(name)

    def save(self, file: pathlib.Path) -> None:
        """Writes the sheet as a PNG, which appears when it is complete."""
        with atomic(file) as partial:
            small = self._image.resize(self._size, Image.Resampling.BOX)
            small.save(partial, format="PNG", optimize=True)

    def _draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._image)

    def _dot(self, x: float, y: float, radius: float, colour: str) -> None:
        ends = [(v + sign * radius) * _FINE for sign in (-1, 1) for v in (x, y)]
        self._draw().ellipse(ends, colour)

    def _arrow(self, points: Sequence[tuple[float, float]]) -> None:
        """Draws a thin arrow to the right or down."""
        self._line(points, SOFT)
        (_, (x, y)), right = points, points[0][1] == points[1][1]
        wings = [(x - 4, y - 3), (x - 4, y + 3)] if right else [(x - 3, y - 4), (x + 3, y - 4)]
        for wing in wings:
            self._line([wing, (x, y)], SOFT)

    def _line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str,
        width: float = 1.0,
        dash: float = 0.0,
    ) -> None:
        points = [(x * _FINE, y * _FINE) for x, y in points]
        width = round(width * _FINE)
        if not dash:
            self._draw().line(points, colour, width, joint="curve")
            return
        (x, y), (end, _) = points
        while x < end:
            self._draw().line([(x, y), (min(x + dash * _FINE, end), y)], colour, width)
            x += 1.7 * dash * _FINE

    def _band(self, corners: Sequence[tuple[float, float]], colour: str) -> None:
        mask = Image.new("L", self._image.size)
        ImageDraw.Draw(mask).polygon([(x * _FINE, y * _FINE) for x, y in corners], 40)
        self._image.paste(Image.new("RGB", self._image.size, colour), mask=mask)
