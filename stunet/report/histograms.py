"""Draws histograms as inline SVG."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from stunet.report.drawing import Axis
from stunet.report.markup import element, join
from stunet.report.page import colour

_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 340, 160, 34, 16, 8, 12
_BINS = 32
# Share of the values that the axis shows. The last bin also counts what lies beyond.
_SHOWN = 0.995


@dataclasses.dataclass(frozen=True)
class Layer:
    """Holds values that have one colour.

    Attributes:
        arm: number of the colour (`stunet.report.page.colour`); None for grey.
        values: the values, at least 0.
    """

    arm: int | None
    values: Float[np.ndarray, "n"]


def histogram(layers: Sequence[Layer], label: str, mark: float = 0, whole: bool = False) -> Markup:
    """Draws the numbers of values in equal bins, from 0 on, with one layer on top of the other.

    Args:
        layers: the values. Together there is at least one.
        label: what the values are, with their unit.
        mark: where a vertical line stands; 0 draws none.
        whole: True if the values are whole numbers.
    """
    everything = np.concatenate([layer.values for layer in layers])
    high = max(float(np.quantile(everything, _SHOWN)) * 1.02, 2 * mark, 1.0 if whole else 1e-3)
    bins = _BINS
    if whole:
        step = -(-int(high + 1) // _BINS)
        bins = -(-int(high + 1) // step)
        high = float(bins * step)
    axis = Axis(label, 0, high)
    # Values beyond the axis are counted in the last bin.
    edges = np.linspace(0, high, bins + 1)
    counts = [
        np.histogram(np.minimum(layer.values, np.nextafter(high, 0)), edges)[0] for layer in layers
    ]
    most = max(1, int(np.sum(counts, axis=0).max()))
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    drawn, floor = [], np.zeros(bins)
    for layer, count in zip(layers, counts, strict=True):
        for i in np.flatnonzero(count):
            height = tall * count[i] / most
            drawn.append(
                element(
                    "rect",
                    class_=f"bar {colour(layer.arm)}",
                    x=f"{_LEFT + wide * i / bins + 0.5:.1f}",
                    y=f"{_TOP + tall - floor[i] - height:.1f}",
                    width=f"{wide / bins - 1:.1f}",
                    height=f"{height:.1f}",
                )
            )
            floor[i] += height
    base = dict(y1=_TOP + tall + 0.5, y2=_TOP + tall + 0.5)
    drawn.append(element("line", class_="axis", x1=_LEFT, x2=_WIDTH - _RIGHT, **base))
    for tick in axis.find_ticks():
        x = f"{_LEFT + wide * axis.share(tick):.1f}"
        drawn.append(element("text", axis.show(tick), class_="middle", x=x, y=_HEIGHT - 20))
    if mark:
        x = f"{_LEFT + wide * axis.share(mark):.1f}"
        drawn.append(element("line", class_="mark", x1=x, x2=x, y1=_TOP, y2=_TOP + tall))
    drawn.append(element("text", f"{most:,}", x=_LEFT, y=_TOP - 4))
    middle = _LEFT + wide / 2
    drawn.append(element("text", label, class_="middle", x=middle, y=_HEIGHT - 4))
    words = {"role": "img", "aria-label": f"histogram of {label}"}
    return element("svg", join(drawn), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", **words)
