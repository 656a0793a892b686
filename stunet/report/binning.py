"""Computes the curves of a sweep: metrics of clips in bins of a property, such as their speed."""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from stunet.errors import UserError
from stunet.report import formatting
from stunet.report.conclusions import LEVEL
from stunet.report.results import Arms, Run, compared
from stunet.report.statistics import (
    Interval,
    holm,
    paired_difference,
    rounding_variance,
    t_interval,
)
from stunet.sweep.curves import Curves

# From this ratio of the last edge to the first on, the horizontal axis is logarithmic.
_LOG_RATIO = 4


@dataclasses.dataclass(frozen=True)
class Counts:
    """Says where the clips of an arm (variant) lie on the horizontal axis, over all seeds.

    Attributes:
        over: name of the metric on the horizontal axis.
        clips: number of clips in each bin.
        seeds: number of seeds that have clips in each bin.
        outside: number of clips in no bin. Some may have no value on the horizontal axis.
        runs: number of runs of the arm, one for each seed.
    """

    over: str
    clips: Sequence[int]
    seeds: Sequence[int]
    outside: int
    runs: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """Compares two arms in one bin.

    Attributes:
        lead: mean lead of the first arm over the second on the seeds that they share, with its
            confidence interval; positive if the first arm is better.
        corrected: p-value after Holm's correction; 1 if they share a single seed, which is no test.
    """

    lead: Interval
    corrected: float

    @property
    def is_clear(self) -> bool:
        return self.corrected < LEVEL


@dataclasses.dataclass(frozen=True)
class Line:
    """Holds one metric over the horizontal axis.

    Attributes:
        means: for each arm and bin, the mean over seeds and its confidence interval; None for a bin
            in which no seed has a clip.
        real: for each bin, the mean over real clips; None for a bin without any.
        differences: for each pair of arms and bin, their difference; None if they share no seed in
            the bin. Empty if neither high nor low values are better.
        comparisons: number of tests for which the differences are corrected.
    """

    means: Mapping[str, Sequence[Interval | None]]
    real: Sequence[float | None]
    differences: Mapping[tuple[str, str], Sequence[Difference | None]]
    comparisons: int


@dataclasses.dataclass(frozen=True)
class Figure:
    """Holds the curves of the arms of one group.

    Attributes:
        curves: what the sweep asks for.
        counts: where the clips of each arm lie.
        lines: curves of each metric.
        group: name of the group.
    """

    curves: Curves
    counts: Mapping[str, Counts]
    lines: Mapping[str, Line]
    group: str = ""

    def expected(self, metric: str) -> dict[str, Sequence[float]]:
        """Returns what was expected of each arm of this group in each bin."""
        return {
            curve.label: curve.values
            for curve in self.curves.expected
            if curve.metric == metric and curve.group in ("", self.group)
        }

    @property
    def is_log(self) -> bool:
        """Tells whether the horizontal axis is logarithmic."""
        first, *_, last = self.curves.bins
        return first > 0 and last / first >= _LOG_RATIO

    @property
    def centres(self) -> list[float]:
        """Returns the middle of each bin as it appears on the horizontal axis."""
        edges = itertools.pairwise(self.curves.bins)
        return [math.sqrt(a * b) if self.is_log else (a + b) / 2 for a, b in edges]


def measure(curves: Curves, groups: Mapping[str, Arms]) -> dict[str, Figure]:
    """Computes the curves of each group's arms.

    Arms whose clips have no values for the horizontal axis are left out, and so are groups without
    any other arms. Comparisons by one metric are corrected for their number, over all bins, pairs
    of arms and groups.

    Args:
        curves: what the sweep asks for.
        groups: runs of each arm of each group. Arms that are only a part of another arm are left
            out.

    Raises:
        UserError: an evaluation has a metric for another number of clips than the horizontal axis.
    """
    groups = {group: compared(arms) for group, arms in groups.items()}
    placed = {}
    for group, arms in groups.items():
        over = {arm: _over(curves, runs[0].clips) for arm, runs in arms.items()}
        placed[group] = {arm: over[arm] for arm in arms if over[arm]}
    placed = {group: over for group, over in placed.items() if over}
    lines = {
        name: _lines(curves, name, {group: groups[group] for group in placed}, placed)
        for name in curves.metrics
    }
    return {
        group: Figure(
            curves,
            {arm: _count(curves, groups[group][arm], name) for arm, name in over.items()},
            {name: of_group[group] for name, of_group in lines.items() if group in of_group},
            group,
        )
        for group, over in placed.items()
    }


def _over(curves: Curves, clips: Mapping[str, Sequence[float | None]]) -> str | None:
    """Returns the name of the metric on the horizontal axis: the first one that was measured."""
    return next((name for name in curves.over if name in clips), None)


def _count(curves: Curves, runs: Sequence[Run], over: str) -> Counts:
    of_seed = [_bin(curves, run.clips, over, over) for run in runs]
    clips = [sum(map(len, values)) for values in zip(*of_seed, strict=True)]
    seeds = [sum(map(bool, values)) for values in zip(*of_seed, strict=True)]
    total = sum(len(run.clips.get(over, ())) for run in runs)
    return Counts(over, clips, seeds, total - sum(clips), len(runs))


def _bin(
    curves: Curves, clips: Mapping[str, Sequence[float | None]], over: str, name: str
) -> list[list[float]]:
    """Sorts the values of the metric `name` into the bins of the metric `over`."""
    places, values = clips.get(over, ()), clips.get(name, ())
    if places and values and len(places) != len(values):
        raise UserError(
            f"an evaluation.json has {name} for {len(values)} clips and {over} for "
            f"{len(places)}; evaluate the run again"
        )
    found, edges = [[] for _ in curves.bins[1:]], curves.bins
    for place, value in zip(places, values, strict=False):
        if place is None or value is None or not edges[0] <= curves.scale * place <= edges[-1]:
            continue
        # The last edge belongs to the last bin.
        found[min(bisect.bisect(edges, curves.scale * place), len(edges) - 1) - 1].append(value)
    return found


def _lines(
    curves: Curves,
    name: str,
    groups: Mapping[str, Arms],
    placed: Mapping[str, Mapping[str, str]],
) -> dict[str, Line]:
    """Computes the curves of one metric, in each group that has values of it.

    Args:
        curves: what the sweep asks for.
        name: name of the metric.
        groups: runs of each arm of each group.
        placed: name of the metric on the horizontal axis, for each arm of each group.
    """
    better = formatting.metric(name).better
    means, leads, real = {}, {}, {}
    for group, over in placed.items():
        arms = {arm: runs for arm, runs in groups[group].items() if arm in over}
        # For each arm, bin and seed, the values of the clips.
        binned = {
            arm: _by_seed(curves, runs, over[arm], name)
            for arm, runs in arms.items()
            if any(name in run.clips for run in runs)
        }
        if not binned:
            continue
        means[group] = {
            arm: [
                t_interval([_mean(v) for v in seeds.values()]) if seeds else None for seeds in bins
            ]
            for arm, bins in binned.items()
        }
        real[group] = _real(curves, arms, name)
        for pair in _pairs(curves, arms) if better else ():
            if all(arm in binned for arm in pair):
                leads[group, *pair] = [
                    _lead(*bins, better) for bins in zip(*map(binned.get, pair), strict=True)
                ]
    tested = [lead for of_pair in leads.values() for lead in of_pair if lead and lead.n > 1]
    corrected = iter(holm([lead.p_value for lead in tested]))
    differences = {
        key: [lead and Difference(lead, next(corrected) if lead.n > 1 else 1.0) for lead in of_pair]
        for key, of_pair in leads.items()
    }
    return {
        group: Line(
            means[group],
            real[group],
            {(a, b): found for (of, a, b), found in differences.items() if of == group},
            len(tested),
        )
        for group in means
    }


def _by_seed(
    curves: Curves, runs: Sequence[Run], over: str, name: str
) -> list[dict[int | None, list[float]]]:
    """Returns, for each bin, the values of the clips of each seed that has clips there."""
    of_seed = {run.seed: _bin(curves, run.clips, over, name) for run in runs}
    return [
        {seed: bins[i] for seed, bins in of_seed.items() if bins[i]}
        for i in range(len(curves.bins) - 1)
    ]


def _lead(
    a: Mapping[int | None, Sequence[float]],
    b: Mapping[int | None, Sequence[float]],
    better: str,
) -> Interval | None:
    """Returns the mean lead of arm `a` over arm `b` in one bin; None if they share no seed.

    Args:
        a: values of the clips of each seed, for the first arm.
        b: the same for the second arm.
        better: which values are better: "lower" or "higher".
    """
    shared = [[arm[seed] for seed in a if seed in b] for arm in (a, b)]
    means = ({seed: _mean(values) for seed, values in arm.items()} for arm in (a, b))
    lead = paired_difference(*means, rounding=rounding_variance(*shared))
    return lead and lead.scaled(1 if better == "higher" else -1)


def _pairs(curves: Curves, arms: Arms) -> list[tuple[str, str]]:
    """Returns the pairs of arms to compare; see `Curves.pairs`."""
    if curves.pairs:
        return [pair for pair in curves.pairs if all(arm in arms for arm in pair)]
    pairs = itertools.combinations(arms, 2)
    return [(a, b) for a, b in pairs if arms[a][0].given == arms[b][0].given]


def _real(curves: Curves, arms: Arms, name: str) -> list[float | None]:
    """Returns the mean over real clips in each bin; None for a bin without any."""
    runs = [run for of_arm in arms.values() for run in of_arm if name in run.real_clips]
    # Runs of one group are compared with the same real clips.
    for run in runs:
        if over := _over(curves, run.real_clips):
            binned = _bin(curves, run.real_clips, over, name)
            return [_mean(values) if values else None for values in binned]
    return [None] * (len(curves.bins) - 1)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
