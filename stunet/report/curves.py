"""Draws the training curves of a report."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from stunet.evaluate.metrics import METRICS
from stunet.report import drawing, formatting, page
from stunet.report.drawing import Curve
from stunet.report.formatting import TRAINING, VALIDATION
from stunet.report.markup import fill
from stunet.report.results import Arms, Run
from stunet.report.statistics import t_interval
from stunet.report.tables import EQUAL_WORK

# Points of a training curve: each is a mean over the updates around it.
_POINTS = 60

_LOSSES = """\
{% if legend %}<p class=legend>\
{% for arm in legend %}<span class=key>{{ arm }}</span>{% endfor %}</p>{% endif %}\
<div class=charts>{% for figure in figures %}<figure>{{ figure }}</figure>{% endfor %}</div>\
<p class=note>{{ note }}</p>"""


def losses(arms: Arms, colours: Mapping[str, int]) -> Markup:
    """Draws the training and validation loss of each arm, and metrics of evaluations.

    Returns "" if no arm was trained.
    """
    trained = {arm: [run for run in runs if run.lines] for arm, runs in arms.items()}
    trained = {arm: runs for arm, runs in trained.items() if runs}
    costs = [run.step_flops for runs in trained.values() for run in runs]
    if not costs:
        return Markup()
    # Where an update of one arm costs more than another's, updates do not measure the effort.
    by_flops = max(costs) > (1 + EQUAL_WORK) * min(costs)
    most = max(run.step_flops * run.step for runs in trained.values() for run in runs)
    size, unit = formatting.flops_unit(most)
    label = f"training work, {unit}" if by_flops else "updates"
    figures = []
    for key, name in ({"loss": TRAINING, "val/loss": VALIDATION} | _evaluated(trained)).items():
        curves = [
            _curve(colours[arm], runs, key, runs[0].step_flops / size if by_flops else 1)
            for arm, runs in trained.items()
        ]
        if curves := [curve for curve in curves if curve]:
            values = [value for curve in curves for seed in curve.seeds for value in seed]
            most = max(curve.x[-1] for curve in curves) or 1.0
            x = drawing.Axis(label, 0.0, most)
            y = drawing.axis_of(values, name)
            figures.append(drawing.chart(drawing.Panel(curves, x, y, name)))
    several = len(trained) > 1 or any(len(runs) > 1 for runs in trained.values())
    legend, note = [], ""
    if several:
        legend = [page.swatch(colours[arm], arm) for arm in trained]
        note = (
            "Lower losses are better. Lines are means over seeds; bands are 95% intervals of three "
            "seeds or more; two seeds have a thin line each. "
        )
    note += f"A curve with more than {_POINTS} points is averaged down to {_POINTS}."
    return fill(_LOSSES, legend=legend, figures=figures, note=note)


def _evaluated(arms: Arms) -> dict[str, str]:
    """Returns the title of each metric that runs measured while they trained, by its key.

    Metrics that are neither better where they are higher nor where they are lower are left out.
    Users' own metrics are known from the evaluations of the runs.
    """
    runs = [run for of_arm in arms.values() for run in of_arm]
    own = {name: metric for run in runs for name, metric in run.own_metrics.items()}
    # In the order of the table, and with its rows for its names.
    known = METRICS | {name: metric for name, metric in own.items() if name not in METRICS}
    found = {key for run in runs for line in run.lines for key in line}
    return {
        key: f"{metric.label}, {metric.direction}"
        for name, metric in known.items()
        if (key := f"eval/{name}") in found and metric.better
    }


def _curve(colour: int, runs: Sequence[Run], key: str, unit: float) -> Curve | None:
    """Returns the mean curve of an arm's runs, at the updates for which all runs have a value.

    If there are very many updates, each point of the curve is the mean over several updates.

    Args:
        colour: number of the arm's colour.
        runs: runs of the arm.
        key: name of the values in the lines of `metrics.jsonl`.
        unit: length of one update on the horizontal axis. It is 1 if the axis counts updates. If
            the axis counts floating-point operations, it is the operations of one update.
    """
    points = max(sum(key in line for line in run.lines) for run in runs)
    width = max(run.step for run in runs) / _POINTS if points > _POINTS else 1
    courses = []
    for run in runs:
        bins = {}
        for line in run.lines:
            if key in line and math.isfinite(line[key]):
                bins.setdefault(math.ceil(line["step"] / width), []).append(line[key])
        courses.append({b: math.fsum(values) / len(values) for b, values in bins.items()})
    shared = sorted(b for b in courses[0] if all(b in course for course in courses))
    if not shared:
        return None
    seeds = [[course[b] for b in shared] for course in courses]
    y = [t_interval(values) for values in zip(*seeds, strict=True)]
    return Curve(colour, [b * width * unit for b in shared], y, seeds)
