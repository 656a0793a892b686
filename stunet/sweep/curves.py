"""Defines the curves that the report of a sweep draws over a property of each clip."""

import dataclasses
import itertools

from stunet.errors import UserError, choose
from stunet.evaluate.metrics import METRICS

# Numbers are below this, so that their products are finite.
_MOST = 1e100


@dataclasses.dataclass(frozen=True)
class Expected:
    """Says what an arm (variant) is expected to measure in each bin, for example by a formula.

    Attributes:
        label: label of the arm.
        metric: one of the metrics of the curves.
        values: the mean over clips in each bin, in the unit of the metric; shares are 0 to 1.
        group: group of the arm; "" for all groups.
    """

    label: str
    metric: str
    values: tuple[float, ...]
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Curves:
    """Asks the report for curves of metrics over a property of each clip, such as its speed.

    The report has a chart for each metric, and a line for each arm (variant). A point is the mean
    over the seeds of an arm. Each seed's value is the mean over its clips in one bin.

    Attributes:
        title: heading of the charts.
        metrics: metrics of clips, by their names in `stunet.evaluate.metrics.METRICS`.
        over: metrics for the horizontal axis. Each arm takes the first one that was measured for
            its clips. ("true_speed", "step_length") is the true speed where the network was told
            it, and the speed of the sampled clip elsewhere.
        bins: edges of the bins on the horizontal axis, ascending, after scaling. Clips that lie
            outside are counted and left out.
        label: name of the horizontal axis, with its unit.
        scale: factor from the unit of `over` to the unit of `bins`. On a torus of W pixels with
            keyframes k frames apart, 2 * k / W turns pixels per frame into displacements per stride
            in units of the limit of aliasing, which is half of the torus.
        marks: vertical lines: pairs of a place on the horizontal axis and words that stand there.
        pairs: arms to compare in each bin: pairs of their labels. () compares every two arms that
            were given the same part of the real clips.
        expected: what arms are expected to measure. The report draws it beside the measurements.

    Raises:
        UserError: a metric is unknown, the bins are not ascending, or an expected curve is not one
            of a metric of the curves, with a number for each bin.
    """

    title: str
    metrics: tuple[str, ...]
    over: tuple[str, ...]
    bins: tuple[float, ...]
    label: str
    scale: float = 1.0
    marks: tuple[tuple[float, str], ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    expected: tuple[Expected, ...] = ()

    def __post_init__(self):
        for key in ("metrics", "over"):
            names = getattr(self, key)
            if isinstance(names, str) or not names:
                raise UserError(f"{key} of Curves is {names!r}; give a tuple of metrics of clips")
            for name in names:
                choose(METRICS, name, f"metric in {key} of Curves")
        is_ascending = all(a < b for a, b in itertools.pairwise(self.bins))
        if len(self.bins) < 2 or not is_ascending or not max(map(abs, self.bins)) < _MOST:
            raise UserError(f"bins of Curves are {self.bins}; give two or more ascending edges")
        if not 0 < self.scale < _MOST:
            raise UserError(f"scale of Curves is {self.scale}; give a positive number")
        for curve in self.expected:
            choose(dict.fromkeys(self.metrics), curve.metric, "metric in expected of Curves")
            if len(curve.values) != len(self.bins) - 1 or not max(map(abs, curve.values)) < _MOST:
                raise UserError(
                    f"expected of Curves has {curve.values} for {curve.label!r}; give a number for "
                    f"each of the {len(self.bins) - 1} bins"
                )
