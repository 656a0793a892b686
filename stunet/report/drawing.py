"""Draws charts as inline SVG: curves with bands, bars, and rows of intervals.

Each arm (variant) of a sweep has a CSS class, to which the page's style sheet gives a colour
(`page.STYLE`).
"""

import dataclasses
import html
import math
from collections.abc import Sequence

from stunet.report.formatting import number
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


def chart(curves: Sequence[Curve], x_label: str, y_label: str) -> str:
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
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {_both("y", y)}/>')
        drawn.append(f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{number(tick)}</text>')
    for tick in _ticks(0, most):
        x = at_x(tick)
        ends = f'y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM + 4}"'
        drawn.append(f'<line class="axis" {_both("x", x)} {ends}/>')
        drawn.append(
            f'<text class="middle" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{number(tick)}</text>'
        )
    for c in curves:
        if len(c.seeds) > 2:
            there = [*c.x, *reversed(c.x)]
            back = [i.high for i in c.y] + [i.low for i in reversed(c.y)]
            drawn.append(f'<polygon class="band {colour(c.arm)}" points="{line(there, back)}"/>')
        for seed in c.seeds if len(c.seeds) == 2 else ():
            drawn.append(f'<polyline class="seed {colour(c.arm)}" points="{line(c.x, seed)}"/>')
    for c in curves:
        means = [i.mean for i in c.y]
        drawn.append(f'<polyline class="mean {colour(c.arm)}" points="{line(c.x, means)}"/>')
        if len(c.x) <= 12:
            dot = f'class="dot {colour(c.arm)}" r="3.2"'
            drawn += [
                f'<circle {dot} cx="{at_x(x):.1f}" cy="{at_y(y):.1f}"/>'
                for x, y in zip(c.x, means, strict=True)
            ]
    scale = ", logarithmic" if is_log else ""
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    drawn += [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {_both("y", _HEIGHT - _BOTTOM)}/>',
        f'<text class="middle" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}">'
        f"{html.escape(x_label)}</text>",
        f'<text class="middle" transform="translate(13 {middle}) rotate(-90)">'
        f"{html.escape(y_label)}{scale}</text>",
    ]
    return _svg(_WIDTH, _HEIGHT, html.escape(y_label), drawn)


def intervals(rows: Sequence[tuple[int, Interval, Sequence[float]]], label: str) -> str:
    """Draws one row for each arm: mean, confidence interval and seeds, on a common scale.

    Args:
        rows: for each arm, the number of its colour, its interval, and the value for each seed.
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
            drawn.append(
                f'<line class="whisker {colour(arm)}" x1="{at(interval.low):.1f}" '
                f'x2="{at(interval.high):.1f}" {_both("y", y)}/>'
            )
        drawn += [
            f'<circle class="one {colour(arm)}" cx="{at(v):.1f}" cy="{y}" r="2.4"/>' for v in seeds
        ]
        drawn.append(
            f'<circle class="dot {colour(arm)}" cx="{at(interval.mean):.1f}" cy="{y}" r="4.5"/>'
        )
    return _svg(width, step * len(rows), html.escape(label), drawn, fixed=True)


def bars(rows: Sequence[tuple[int, str, Interval, str]], label: str, most: float = 0.0) -> str:
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
        drawn += [
            f'<text class="name" x="0" y="{top - 7}">{html.escape(name)}</text>',
            f'<rect class="track" x="0" y="{top}" width="{width - right}" height="{height}"/>',
            f'<rect class="bar {colour(arm)}" x="{min(zero, end):.1f}" y="{top}" '
            f'width="{abs(end - zero):.1f}" height="{height}"/>',
        ]
        if interval.half is not None:
            low, high = at(interval.low), at(interval.high)
            drawn.append(
                f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8'
                f'M{high:.1f} {middle - 4}v8"/>'
            )
        drawn.append(
            f'<text class="value" x="{width - right + 8}" y="{middle + 5}">{html.escape(words)}'
            "</text>"
        )
    return _svg(width, step * len(rows), html.escape(label), drawn)


def _svg(width: int, height: int, label: str, drawn: Sequence[str], fixed: bool = False) -> str:
    size = f' width="{width}" height="{height}"' if fixed else ""
    return (
        f'<svg viewBox="0 0 {width} {height}"{size} role="img" aria-label="{label}">'
        f"{''.join(drawn)}</svg>"
    )


def _both(axis: str, value: float) -> str:
    return f'{axis}1="{value:.1f}" {axis}2="{value:.1f}"'


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
