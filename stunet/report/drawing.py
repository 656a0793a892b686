"""Draws charts as inline SVG: curves with bands, bars, and rows of intervals.

Each arm (variant) of a sweep has a CSS class, to which the page's style sheet gives a colour
(`page.STYLE`).
"""

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup

from stunet.report.formatting import number
from stunet.report.markup import element, join
from stunet.report.page import colour
from stunet.report.statistics import Interval

# Size and margins of a chart, in its own units; the page scales it.
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44
# A curve that falls by more than this factor is shown on a logarithmic scale.
_LOG_RATIO = 4


@dataclasses.dataclass(frozen=True)
class Curve:
    """Holds the curve of one arm (variant) of a sweep.

    Attributes:
        arm: number of the arm, which gives its colour.
        x: positions on the horizontal axis, ascending.
        y: the mean over seeds and its confidence interval, at each x.
        seeds: for each seed, the values at each x.
    """

    arm: int
    x: Sequence[float]
    y: Sequence[Interval]
    seeds: Sequence[Sequence[float]]


def chart(curves: Sequence[Curve], x_label: str, y_label: str) -> Markup:
    """Draws means as lines, and the confidence interval of three seeds or more as a band.

    With two seeds, a thin line for each seed replaces the band, because the confidence interval of
    two values would fill the chart.

    Args:
        curves: one curve for each arm, at least one.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
    """
    values = [v for c in curves for seed in c.seeds for v in seed]
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > _LOG_RATIO
    if is_log:
        low, high = low * 0.9, high * 1.1
    else:
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
    most = max(c.x[-1] for c in curves) or 1.0

    def at_x(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / most

    def at_y(y: float) -> float:
        y = min(max(y, low), high)
        share = math.log(y / low) / math.log(high / low) if is_log else (y - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def line(x: Sequence[float], y: Sequence[float]) -> str:
        return " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in zip(x, y, strict=True))

    drawn = []
    for tick in _log_ticks(low, high) if is_log else _ticks(low, high):
        y = at_y(tick)
        ends = dict(x1=_LEFT, x2=_WIDTH - _RIGHT)
        drawn.append(element("line", class_="grid", **ends, **_both("y", y)))
        drawn.append(element("text", number(tick), class_="end", x=_LEFT - 6, y=f"{y + 4:.1f}"))
    for tick in _ticks(0, most):
        x = at_x(tick)
        ends = dict(y1=_HEIGHT - _BOTTOM, y2=_HEIGHT - _BOTTOM + 4)
        drawn.append(element("line", class_="axis", **_both("x", x), **ends))
        place = dict(x=f"{x:.1f}", y=_HEIGHT - _BOTTOM + 18)
        drawn.append(element("text", number(tick), class_="middle", **place))
    for c in curves:
        if len(c.seeds) > 2:
            there = [*c.x, *reversed(c.x)]
            back = [i.high for i in c.y] + [i.low for i in reversed(c.y)]
            points = line(there, back)
            drawn.append(element("polygon", class_=f"band {colour(c.arm)}", points=points))
        for seed in c.seeds if len(c.seeds) == 2 else ():
            points = line(c.x, seed)
            drawn.append(element("polyline", class_=f"seed {colour(c.arm)}", points=points))
    for c in curves:
        means = [i.mean for i in c.y]
        points = line(c.x, means)
        drawn.append(element("polyline", class_=f"mean {colour(c.arm)}", points=points))
        if len(c.x) <= 12:
            dot = dict(class_=f"dot {colour(c.arm)}", r=3.2)
            drawn += [
                element("circle", **dot, cx=f"{at_x(x):.1f}", cy=f"{at_y(y):.1f}")
                for x, y in zip(c.x, means, strict=True)
            ]
    scale = ", logarithmic" if is_log else ""
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    ends = dict(x1=_LEFT, x2=_WIDTH - _RIGHT)
    below = dict(x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6)
    beside = f"translate(13 {middle}) rotate(-90)"
    drawn += [
        element("line", class_="axis", **ends, **_both("y", _HEIGHT - _BOTTOM)),
        element("text", x_label, class_="middle", **below),
        element("text", f"{y_label}{scale}", class_="middle", transform=beside),
    ]
    return _svg(_WIDTH, _HEIGHT, y_label, drawn)


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
