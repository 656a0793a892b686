"""Draws charts as inline SVG: curves with bands, bars, and rows of intervals.

Each arm (variant) of a sweep has a CSS class, to which the page's style sheet gives a colour
(`page.STYLE`).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from markupsafe import Markup
from PIL import ImageFont

from stunet.report.formatting import number
from stunet.report.markup import element, join
from stunet.report.page import STYLE, colour
from stunet.report.statistics import Interval

# Size and margins of a chart, in its own units; the page scales it.
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44
# Values that differ by more than this factor are shown on a logarithmic scale.
_LOG_RATIO = 4
# Name of dotted lines in a legend.
EXPECTED = "expected"
# A curve with at most this many points has a dot at each.
_MOST_DOTS = 16


@dataclasses.dataclass(frozen=True)
class Axis:
    """Describes an axis of a chart.

    Attributes:
        label: what stands beside the axis.
        low: value at the beginning of the axis.
        high: value at its end, above `low`.
        is_log: the axis is logarithmic, and `low` is above 0.
        show: function that writes a value beside its tick.
        ticks: values to write beside the axis; () chooses about five round ones.
    """

    label: str
    low: float
    high: float
    is_log: bool = False
    show: Callable[[float], str] = number
    ticks: Sequence[float] = ()

    def share(self, value: float) -> float:
        """Returns where a value lies on the axis, 0..1. Values beyond an end lie at that end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = map(math.log, (low, high, value))
        return (value - low) / (high - low)

    def find_ticks(self) -> Sequence[float]:
        """Returns the values to write beside the axis."""
        return self.ticks or (_log_ticks if self.is_log else _ticks)(self.low, self.high)


def axis_of(values: Sequence[float], label: str) -> Axis:
    """Returns an axis for these values. It is logarithmic if they differ by a factor above 4."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_RATIO:
        return Axis(f"{label}, logarithmic", low * 0.9, high * 1.1, is_log=True)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(label, low - margin, high + margin)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Holds the curve of one arm (variant) of a sweep.

    Attributes:
        arm: number of the arm, which gives its colour; None for real clips, whose curve is grey and
            dashed.
        x: positions on the horizontal axis, ascending.
        y: the mean over seeds and its confidence interval, at each x; None where there is no mean,
            so that the curve has a gap.
        seeds: for each seed, the values at each x, to be drawn as thin lines; () draws none.
        expected: what was expected at each x, to be drawn as a dotted line; () draws none.
    """

    arm: int | None
    x: Sequence[float]
    y: Sequence[Interval | None]
    seeds: Sequence[Sequence[float]] = ()
    expected: Sequence[float] = ()

    def pieces(self) -> list[list[tuple[float, Interval]]]:
        """Returns the points (x, y) of each piece of the curve without a gap."""
        points = [(x, y) for x, y in zip(self.x, self.y, strict=True)]
        by_gap = itertools.groupby(points, key=lambda point: point[1] is not None)
        return [list(piece) for there, piece in by_gap if there]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Describes a chart.

    Attributes:
        curves: one curve for each arm, at least one.
        x: horizontal axis.
        y: vertical axis.
        title: title of the chart.
        note: words after the title, such as "higher is better".
        marks: places of vertical lines on the horizontal axis, and words beside each.
    """

    curves: Sequence[Curve]
    x: Axis
    y: Axis
    title: str
    note: str = ""
    marks: Sequence[tuple[float, str]] = ()


def chart(panel: Panel) -> Markup:
    """Draws means as lines, and the confidence interval of three seeds or more as a band.

    Where there are fewer seeds, there is no band, because the confidence interval of two values
    would fill the chart. The title is not drawn.
    """
    return _svg(_WIDTH, _HEIGHT, panel.title, _plot(panel))


def sheet(panels: Sequence[Panel], legend: Mapping[str, int | None], title: str) -> Markup:
    """Returns an SVG that stands alone: charts in two columns, with their titles and a legend.

    The last place of an odd number of charts holds the legend. An even number leaves it no place,
    so that it stands above the charts.

    Args:
        panels: the charts.
        legend: number of each arm's colour; None for real clips and for `EXPECTED`.
        title: title of the picture.
    """
    gap, head = 24, 30
    columns = min(len(panels), 2)
    step_x, step_y = _WIDTH + gap, head + _HEIGHT + gap
    top, width = 60, columns * step_x + gap
    drawn = [element("text", title, class_="title", x=gap, y=40)]
    if len(panels) % columns:
        keys, _ = _legend(legend, 0.0)
        x, y = gap + step_x + _LEFT, top + (len(panels) // columns) * step_y + head
    else:
        keys, height = _legend(legend, width - 2 * gap)
        x, y, top = gap, top, top + height
    drawn.append(_moved(keys, x, y))
    for i, panel in enumerate(panels):
        words = [element("tspan", panel.title, class_="name strong")]
        words += [element("tspan", panel.note, dx=8)] if panel.note else []
        heading = element("text", join(words), x=_LEFT, y=16)
        plot = _moved(_plot(panel), 0, head - 6)
        at = gap + step_x * (i % columns), top + step_y * (i // columns)
        drawn.append(_moved([heading, plot], *at))
    height = top + step_y * -(-len(panels) // columns)
    paper = element("rect", class_="paper", width=width, height=height)
    size = dict(viewBox=f"0 0 {width} {height}", width=width, height=height)
    words = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": title}
    return element("svg", join([element("style", Markup(STYLE)), paper, *drawn]), **words, **size)


def _legend(names: Mapping[str, int | None], width: float) -> tuple[list[Markup], float]:
    """Draws the name of each arm beside a piece of its line, in rows of at most this width.

    Returns the drawing and its height. A row holds one name or more. Widths are estimates, because
    the font is the reader's.
    """
    font, step = ImageFont.load_default(14), 26
    drawn, x, y = [], 0.0, 0
    for name, arm in names.items():
        needed = 64 + 1.1 * font.getlength(name)
        if x and x + needed > width:
            x, y = 0.0, y + step
        middle = y + step / 2
        kind = "expected" if name == EXPECTED else "mean"
        line = dict(
            class_=f"{kind} {colour(arm)}", points=f"{x:.1f},{middle} {x + 26:.1f},{middle}"
        )
        drawn.append(element("polyline", **line))
        if arm is not None:
            dot = dict(class_=f"dot {colour(arm)}", cx=f"{x + 13:.1f}", cy=middle, r=3.6)
            drawn.append(element("circle", **dot))
        drawn.append(element("text", name, class_="name", x=f"{x + 34:.1f}", y=middle + 5))
        x += needed
    return drawn, y + step + 8


def _moved(drawn: Sequence[Markup], x: float, y: float) -> Markup:
    return element("g", join(drawn), transform=f"translate({x} {y})")


def _plot(panel: Panel) -> list[Markup]:
    """Draws a chart without its title."""
    curves, x, y, marks = panel.curves, panel.x, panel.y, panel.marks

    def at_x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * x.share(value)

    def at_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y.share(value)

    def line(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in points)

    drawn = []
    for tick in y.find_ticks():
        ends = dict(x1=_LEFT, x2=_WIDTH - _RIGHT)
        drawn.append(element("line", class_="grid", **ends, **_both("y", at_y(tick))))
        place = dict(x=_LEFT - 6, y=f"{at_y(tick) + 4:.1f}")
        drawn.append(element("text", y.show(tick), class_="end", **place))
    for tick in x.find_ticks():
        ends = dict(y1=_HEIGHT - _BOTTOM, y2=_HEIGHT - _BOTTOM + 4)
        drawn.append(element("line", class_="axis", **_both("x", at_x(tick)), **ends))
        place = dict(x=f"{at_x(tick):.1f}", y=_HEIGHT - _BOTTOM + 18)
        drawn.append(element("text", x.show(tick), class_="middle", **place))
    for place, words in marks:
        ends = dict(y1=_TOP, y2=_HEIGHT - _BOTTOM)
        drawn.append(element("line", class_="mark", **_both("x", at_x(place)), **ends))
        drawn.append(element("text", words, class_="middle", x=f"{at_x(place):.1f}", y=_TOP - 3))
    for c in curves:
        for points in c.pieces():
            drawn += _bands(points, colour(c.arm), line)
        for seed in c.seeds if len(c.seeds) == 2 else ():
            points = line(zip(c.x, seed, strict=True))
            drawn.append(element("polyline", class_=f"seed {colour(c.arm)}", points=points))
        if c.expected:
            points = line(zip(c.x, c.expected, strict=True))
            drawn.append(element("polyline", class_=f"expected {colour(c.arm)}", points=points))
    for c in curves:
        for points in c.pieces():
            means = [(a, b.mean) for a, b in points]
            drawn.append(element("polyline", class_=f"mean {colour(c.arm)}", points=line(means)))
            for a, b in points if c.arm is not None and len(c.x) <= _MOST_DOTS else ():
                kind = "dot" if b.n > 2 or c.seeds else "one"
                place = dict(cx=f"{at_x(a):.1f}", cy=f"{at_y(b.mean):.1f}")
                drawn.append(element("circle", class_=f"{kind} {colour(c.arm)}", r=3.2, **place))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    ends = dict(x1=_LEFT, x2=_WIDTH - _RIGHT)
    below = dict(x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6)
    beside = f"translate(13 {middle}) rotate(-90)"
    drawn += [
        element("line", class_="axis", **ends, **_both("y", _HEIGHT - _BOTTOM)),
        element("text", x.label, class_="middle", **below),
        element("text", y.label, class_="middle", transform=beside),
    ]
    return drawn


def _bands(
    points: Sequence[tuple[float, Interval]],
    classes: str,
    line: Callable[[Iterable[tuple[float, float]]], str],
) -> Iterator[Markup]:
    """Draws the intervals of three seeds or more: a band, or a whisker at a single point."""
    by_seeds = itertools.groupby(points, key=lambda point: point[1].n > 2)
    for piece in (list(piece) for enough, piece in by_seeds if enough):
        there = line((x, y.high) for x, y in piece)
        back = line((x, y.low) for x, y in reversed(piece))
        if len(piece) == 1:
            yield element("polyline", class_=f"seed {classes}", points=f"{there} {back}")
        else:
            yield element("polygon", class_=f"band {classes}", points=f"{there} {back}")


def intervals(rows: Sequence[tuple[int, Interval, Sequence[float]]], label: str) -> Markup:
    """Draws the mean, the confidence interval and the value of each seed, in one row for each arm.

    All rows have the same scale.

    Args:
        rows: for each arm, the number of its colour, its mean with the confidence interval, and the
            value for each seed.
        label: text for readers who do not see the drawing.
    """
    width, step = 170, 16
    ends = [v for _, i, seeds in rows for v in (i.low, i.high, *seeds)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return 8 + (width - 16) * (value - low) / span

    drawn = []
    for row, (arm, interval, seeds) in enumerate(rows):
        y = step * row + step / 2
        if interval.half is not None:
            ends = dict(x1=f"{at(interval.low):.1f}", x2=f"{at(interval.high):.1f}")
            drawn.append(element("line", class_=f"whisker {colour(arm)}", **ends, **_both("y", y)))
        dots = [("one", value, 2.4) for value in seeds] + [("dot", interval.mean, 4.5)]
        drawn += [
            element("circle", class_=f"{kind} {colour(arm)}", cx=f"{at(value):.1f}", cy=y, r=r)
            for kind, value, r in dots
        ]
    return _svg(width, step * len(rows), label, drawn, fixed=True)


def bars(rows: Sequence[tuple[int, str, Interval, str]], label: str, most: float = 0.0) -> Markup:
    """Draws one bar for each arm, from zero to its mean, with its interval as a whisker.

    Args:
        rows: for each arm, the number of its colour, its name, its interval, and its mean as text.
        label: text for readers who do not see the drawing.
        most: value at the end of the axis; 0 takes the largest value.
    """
    width, step, height, right = 420, 46, 14, 64
    most = most or max(max(i.high, i.mean) for _, _, i, _ in rows) or 1.0
    least = min(0.0, *(i.low if i.mean < 0 else 0.0 for _, _, i, _ in rows))

    def at(value: float) -> float:
        return (width - right) * (min(max(value, least), most) - least) / (most - least)

    drawn = []
    for row, (arm, name, interval, words) in enumerate(rows):
        top, zero, end = step * row + 22, at(0.0), at(interval.mean)
        middle = top + height / 2
        track = dict(x=0, y=top, width=width - right, height=height)
        bar = dict(x=f"{min(zero, end):.1f}", y=top, width=f"{abs(end - zero):.1f}", height=height)
        drawn += [
            element("text", name, class_="name", x=0, y=top - 7),
            element("rect", class_="track", **track),
            element("rect", class_=f"bar {colour(arm)}", **bar),
        ]
        if interval.half is not None:
            low, high = at(interval.low), at(interval.high)
            line, whiskers = f"M{low:.1f} {middle}H{high:.1f}", (low, high)
            line += "".join(f"M{x:.1f} {middle - 4}v8" for x in whiskers)
            drawn.append(element("path", class_="range", d=line))
        place = dict(x=width - right + 8, y=middle + 5)
        drawn.append(element("text", words, class_="value", **place))
    return _svg(width, step * len(rows), label, drawn)


def _svg(
    width: int, height: int, label: str, drawn: Sequence[Markup], fixed: bool = False
) -> Markup:
    size = dict(width=width, height=height) if fixed else {}
    words = {"role": "img", "aria-label": label}
    return element("svg", join(drawn), viewBox=f"0 0 {width} {height}", **size, **words)


def _both(axis: str, value: float) -> dict[str, str]:
    return {f"{axis}1": f"{value:.1f}", f"{axis}2": f"{value:.1f}"}


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers in low..high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers in low..high for a logarithmic scale; `low` must be positive."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = (1, 2, 5) if high / low < 1000 else (1,)
    return [t for p in powers for m in every if low <= (t := float(f"{m}e{p}")) <= high]
