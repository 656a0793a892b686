"""Formats numbers, names and lists for a page."""

import contextlib
import contextvars
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup, escape

from stunet.evaluate.metrics import METRICS, Metric
from stunet.report.markup import fill, join
from stunet.report.statistics import Interval

VALIDATION, TRAINING = "validation loss", "training loss"
_LOSSES = {
    VALIDATION: Metric(VALIDATION, "the newest mean over held-out clips", format="{:.4g}"),
    TRAINING: Metric(TRAINING, "the mean over the last tenth of the updates", format="{:.4g}"),
}

_own: contextvars.ContextVar[Mapping[str, Metric]] = contextvars.ContextVar("own")


@contextlib.contextmanager
def with_own_metrics(own: Mapping[str, Metric]) -> Iterator[None]:
    """Context manager in which `metric` knows users' own metrics, by name."""
    token = _own.set(own)
    try:
        yield
    finally:
        _own.reset(token)


def metric(name: str) -> Metric:
    """Returns how a page names and formats a metric.

    A metric of nested results, such as "fast / coherent", is looked up by the last part of its
    name. The title of an unknown metric is its name.
    """
    prefix, separator, last = name.rpartition(" / ")
    unknown = Metric(last.replace("_", " "), "", format="{:.4g}")
    known = {**_own.get({}), **METRICS, **_LOSSES}.get(last, unknown)
    if not prefix:
        return known
    title = f"{prefix}{separator}{known.title}"
    return Metric(title, known.description, known.unit, known.format, known.better, known.claim)


def number(value: float) -> str:
    """Writes a number with four digits at most: 0.05, 250, 1.3e12."""
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.3g}".replace("e+", "e")


def interval(value: Interval, percent: bool = False) -> Markup:
    """Returns HTML such as "0.520 ± 0.013": the mean, and half the width of the interval.

    The half width has two significant digits. If `percent`, both numbers are in percent.
    """
    times, unit = (100, "%") if percent else (1, "")
    mean, half = times * value.mean, times * (value.half or 0.0)
    # Half an interval this small is a rounding error.
    if half <= 1e-9 * abs(mean):
        return escape(f"{number(mean)}{unit}")
    digits = max(0, 1 - math.floor(math.log10(half)))
    if digits > 8:
        mean, half = f"{mean:.4g}{unit}", f"{half:.2g}{unit}"
    else:
        mean, half = f"{mean:.{digits}f}{unit}", f"{half:.{digits}f}{unit}"
    return fill("{{ mean }} <small>± {{ half }}</small>", mean=mean, half=half)


def is_percent(name: str) -> bool:
    """Tells whether a metric is written in percent."""
    return "%" in metric(name).format


def flops(value: float) -> str:
    """Writes a number of floating-point operations: 1.333e12 is "1.333 TFLOPs"."""
    size, unit = flops_unit(value)
    return f"{value / size:.4g} {unit}"


def flops_unit(value: float) -> tuple[float, str]:
    """Returns the size and the name of a unit for `value` operations, such as (1e12, "TFLOPs")."""
    power = min(int(math.log10(value)) // 3, 7) if value >= 1 else 0
    return 1000.0**power, f"{' kMGTPEZ'[power].strip()}FLOPs"


def days(dates: Sequence[float]) -> str:
    """Formats timestamps (seconds since 1970) as a day in UTC, such as "25 November 2026".

    Timestamps of several days give the first and the last day; no timestamps give "".
    """
    found = sorted(datetime.datetime.fromtimestamp(d, datetime.UTC).date() for d in dates)
    ends = dict.fromkeys(f"{day.day} {day:%B %Y}" for day in (*found[:1], *found[-1:]))
    return " to ".join(ends)


def enumerate_words(words: Sequence[str]) -> Markup:
    """Joins words as in a sentence: "a, b and c". A word may be plain text or HTML."""
    return join([join(words[:-1], ", "), words[-1]] if len(words) > 1 else words, " and ")


def capitalised(text: str) -> str:
    """Returns the text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def with_article(name: str) -> str:
    """Puts "the" before the name of an arm, unless it is a setting such as "width = 8"."""
    return name if "=" in name else f"the {name}"
