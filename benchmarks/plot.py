"""What benchmarks draw their figures with: panels of curves, and rows of small pictures, as PNG.

Coordinates are pixels of the finished figure; all is drawn three times as large and then shrunk.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stunet.data.media import to_uint8
from stunet.files import atomic

INK, SOFT, RULE = "#1d1f21", "#62666b", "#dadcdf"
# Okabe and Ito's, as on the report's pages.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b6569a")
_FINE = 3


@dataclasses.dataclass(frozen=True)
class Curve:
    """Means and the ends of their intervals, at each x."""

    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Level:
    """A value that does not depend on x, with its interval if it has one, and its name."""

    colour: str
    y: float
    name: str
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """What a chart shows.

    Attributes:
        title: above it.
        x_label: below it.
        x: marked places on the horizontal axis and what stands there.
        y: the same on the vertical axis, from the lowest to the highest.
        curves, levels: what is drawn.
    """

    title: str
    x_label: str
    x: Mapping[float, str]
    y: Mapping[float, str]
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()


class Sheet:
    """White paper of so many pixels."""

    def __init__(self, width: int, height: int):
        self._size = width, height
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), "white")

    def text(self, x: float, y: float, words: str, size: int = 13, colour=INK, anchor="la") -> None:
        """Words whose `anchor` (Pillow's) is at (x, y)."""
        font = ImageFont.load_default(size * _FINE)
        self._draw().text((x * _FINE, y * _FINE), words, colour, font, anchor)

    def picture(self, x: int, y: int, pixels: np.ndarray, times: int) -> None:
        """Float `[h, w, 1 or 3]` in -1..1 or uint8, each pixel `times` pixels on a side."""
        pixels = to_uint8(pixels)
        image = Image.fromarray(np.repeat(pixels, 4 - pixels.shape[-1], -1)[..., :3])
        size = image.width * times * _FINE, image.height * times * _FINE
        self._image.paste(image.resize(size, Image.Resampling.NEAREST), (x * _FINE, y * _FINE))

    def panel(self, left: int, top: int, width: int, height: int, panel: Panel) -> None:
        """A chart whose axes span this rectangle; what is said of them stands around it."""
        lowest, highest = min(panel.y), max(panel.y)
        first, last = min(panel.x), max(panel.x)

        def at(x: float, y: float) -> tuple[float, float]:
            x = left + width * (0.04 + 0.92 * (x - first) / (last - first))
            return x, top + height * (1 - (y - lowest) / (highest - lowest))

        self.text(left, top - 26, panel.title, 15)
        for y, name in panel.y.items():
            _, row = at(first, y)
            self._line([(left, row), (left + width, row)], RULE)
            self.text(left - 6, row, name, 12, SOFT, "rm")
        for x, name in panel.x.items():
            self.text(at(x, 0)[0], top + height + 6, name, 12, SOFT, "ma")
        self.text(left + width / 2, top + height + 24, panel.x_label, 12, SOFT, "ma")
        for level in panel.levels:
            if level.low is not None:
                corners = [
                    (left, at(first, level.high)[1]),
                    (left + width, at(first, level.low)[1]),
                ]
                self._band(
                    [
                        corners[0],
                        (corners[1][0], corners[0][1]),
                        corners[1],
                        (corners[0][0], corners[1][1]),
                    ],
                    level.colour,
                )
            _, row = at(first, level.y)
            self._line([(left, row), (left + width, row)], level.colour, 1.2, dash=6)
            above = row > top + 18
            self.text(
                left + width - 4,
                row + (-3 if above else 3),
                level.name,
                11,
                level.colour,
                "rs" if above else "ra",
            )
        for curve in panel.curves:
            there = [at(*point) for point in zip(curve.x, curve.high, strict=True)]
            back = [at(*point) for point in zip(curve.x, curve.low, strict=True)]
            self._band(there + back[::-1], curve.colour)
            self._line([at(*p) for p in zip(curve.x, curve.y, strict=True)], curve.colour, 2.2)
            for point in zip(curve.x, curve.y, strict=True):
                x, y = at(*point)
                ends = [(v + s * 3.6) * _FINE for s in (-1, 1) for v in (x, y)]
                self._draw().ellipse(ends, curve.colour)

    def legend(self, x: float, y: float, names: Mapping[str, str]) -> None:
        """Names after dots of their colours, in a row."""
        for name, colour in names.items():
            self._draw().ellipse([v * _FINE for v in (x, y - 5, x + 10, y + 5)], colour)
            self.text(x + 15, y, name, 13, INK, "lm")
            x += 36 + ImageFont.load_default(13).getlength(name)

    def save(self, file: pathlib.Path) -> None:
        """As PNG, whole or not at all."""
        with atomic(file) as partial:
            small = self._image.resize(self._size, Image.Resampling.BOX)
            small.save(partial, format="PNG", optimize=True)

    def _draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._image)

    def _line(self, points, colour, width: float = 1.0, dash: float = 0.0) -> None:
        points = [(x * _FINE, y * _FINE) for x, y in points]
        width = round(width * _FINE)
        if not dash:
            self._draw().line(points, colour, width, joint="curve")
            return
        (x, y), (end, _) = points
        while x < end:
            self._draw().line([(x, y), (min(x + dash * _FINE, end), y)], colour, width)
            x += 1.7 * dash * _FINE

    def _band(self, corners, colour) -> None:
        mask = Image.new("L", self._image.size)
        ImageDraw.Draw(mask).polygon([(x * _FINE, y * _FINE) for x, y in corners], 40)
        self._image.paste(Image.new("RGB", self._image.size, colour), mask=mask)
