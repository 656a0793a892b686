"""Shows the curves of a sweep over a property of each clip: charts, sentences and tables."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from stunet.formatting import counted
from stunet.report import drawing, formatting, page
from stunet.report.binning import Difference, Figure, Line
from stunet.report.drawing import Axis, Curve, Panel
from stunet.report.formatting import enumerate_words, with_article
from stunet.report.markup import fill, join
from stunet.report.statistics import Interval

# Edges of bins that are written on the horizontal axis.
_MOST_TICKS = 10

_SECTION = """\
{% if title %}<h3>{{ title }}</h3>{% endif %}\
<p class=legend>{% for key in legend %}<span class=key>{{ key }}</span>{% endfor %}</p>\
<div class=charts>{% for panel, chart in charts %}\
<figure><figcaption><b>{{ panel.title }}</b> {{ panel.note }}</figcaption>{{ chart }}</figure>\
{% endfor %}</div>\
<p class=note>{{ note }}</p>\
{% if findings %}<p>{{ head }}</p>\
<ul>{% for finding in findings %}<li>{{ finding }}</li>{% endfor %}</ul>{% endif %}\
{{ counts }}\
<details><summary>All numbers, and the lead in each bin</summary>{{ numbers }}</details>"""

_NOTE = """\
{% for title, arms in axes %}Clips{% if axes|length > 1 %} of {{ arms }}{% endif %} are sorted by \
their {{ title }}. {% endfor %}\
Dots are means over seeds of each seed's mean in a bin, whose edges are marked below. Bands are \
95% intervals over three seeds or more; hollow dots are means of one or two. A seed without a clip \
in a bin does not count there.{% if real %} The dashed line is of real clips.{% endif %}\
{% if expected %} Dotted lines show what was expected.{% endif %}"""


def section(figure: Figure, colours: Mapping[str, int], title: str = "") -> Markup:
    """Returns the HTML of the curves of one group.

    Args:
        figure: the curves.
        colours: number of each arm's colour.
        title: heading, such as the name of the group; "" for none.
    """
    legend = [page.swatch(colours[arm], arm) for arm in figure.counts]
    legend += [page.swatch(None, "real clips")] if _has_real(figure) else []
    compared = {name: line for name, line in figure.lines.items() if line.comparisons}
    return fill(
        _SECTION,
        title=title,
        legend=legend,
        charts=[(panel, drawing.chart(panel)) for panel in panels(figure, colours)],
        note=_note(figure),
        head="Where two variants differ clearly, after Holm's correction for the number of "
        "comparisons (in all bins, of all pairs):",
        findings=[_finding(figure, name, line) for name, line in compared.items()],
        counts=_counts(figure, colours),
        numbers=join(_numbers(figure, *item, colours) for item in figure.lines.items()),
    )


def picture(figure: Figure, colours: Mapping[str, int], title: str) -> Markup:
    """Returns the charts of one group as an SVG that stands alone, for README and docs."""
    legend: dict[str, int | None] = {arm: colours[arm] for arm in figure.counts}
    legend |= {"real clips": None} if _has_real(figure) else {}
    legend |= {drawing.EXPECTED: None} if _has_expected(figure) else {}
    return drawing.sheet(panels(figure, colours), legend, title)


def panels(figure: Figure, colours: Mapping[str, int]) -> list[Panel]:
    """Returns a chart for each metric, with a line for each arm."""
    edges = figure.curves.bins
    ticks = edges[:: -(-len(edges) // _MOST_TICKS)]
    x = Axis(figure.curves.label, edges[0], edges[-1], figure.is_log, "{:.3g}".format, ticks)
    found = []
    for name, line in figure.lines.items():
        metric = formatting.metric(name)
        real = [value if value is None else Interval(value, None, 1) for value in line.real]
        expected = figure.expected(name)
        lines = [Curve(None, figure.centres, real)]
        lines += [
            Curve(colours[arm], figure.centres, means, expected=expected.get(arm, ()))
            for arm, means in line.means.items()
        ]
        found.append(
            Panel(
                title=formatting.capitalised(metric.title),
                note=metric.direction,
                curves=lines,
                x=x,
                y=_vertical(name, line),
                marks=figure.curves.marks,
            )
        )
    return found


def _vertical(name: str, line: Line) -> Axis:
    """Returns the vertical axis: 0..1 for a share of clips, else from 0 to the largest value."""
    metric = formatting.metric(name)
    show = "{:.0%}".format if formatting.is_percent(name) else formatting.number
    if metric.claim:
        return Axis(metric.unit, 0.0, 1.0, show=show)
    found = [mean for means in line.means.values() for mean in means if mean]
    means = [mean.mean for mean in found] + [value for value in line.real if value is not None]
    # A wide interval may reach beyond the chart.
    most = max(means)
    high = max([0.0, most] + [min(mean.high, 1.5 * most) for mean in found if mean.n > 2])
    low = min([0.0, *means])
    return Axis(metric.unit, low, high + 0.04 * (high - low) or 1.0, show=show)


def _has_real(figure: Figure) -> bool:
    return any(value is not None for line in figure.lines.values() for value in line.real)


def _has_expected(figure: Figure) -> bool:
    return any(map(figure.expected, figure.lines))


def _note(figure: Figure) -> Markup:
    """Says how to read the charts, and what each arm's horizontal axis is."""
    over: dict[str, list[str]] = {}
    for arm, counts in figure.counts.items():
        over.setdefault(counts.over, []).append(with_article(arm))
    axes = [(formatting.metric(name).title, enumerate_words(arms)) for name, arms in over.items()]
    return fill(_NOTE, axes=axes, real=_has_real(figure), expected=_has_expected(figure))


def _finding(figure: Figure, name: str, line: Line) -> Markup:
    """Says in which bins two arms differ clearly by one metric."""
    clauses, unclear = [], []
    for pair, differences in line.differences.items():
        clear = [i for i, found in enumerate(differences) if found and found.is_clear]
        if not clear:
            unclear.append(enumerate_words([with_article(arm) for arm in pair]))
        for (better, worse), sign in ((pair, 1), (pair[::-1], -1)):
            if bins := [i for i in clear if sign * differences[i].lead.mean > 0]:
                clauses.append(
                    fill(
                        "{{ better }} is better than {{ worse }} {{ places }}",
                        better=with_article(better),
                        worse=with_article(worse),
                        places=_places(figure.curves.bins, bins),
                    )
                )
    return fill(
        "<b>{{ title }}</b> ({{ count }}): {{ clauses }}.{{ unclear }}",
        title=formatting.capitalised(formatting.metric(name).title),
        count=counted(line.comparisons, "comparison"),
        clauses=join(clauses, "; ") if clauses else "nowhere",
        unclear=fill(" Nowhere clear: {{ pairs }}.", pairs=join(unclear, "; "))
        if clauses and unclear
        else "",
    )


def _places(edges: Sequence[float], bins: Sequence[int]) -> Markup:
    """Says where bins lie, as in "from 0.5 to 1.4 and from 2 to 2.8"; neighbours are merged."""
    runs = []
    for i in bins:
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1])
    return enumerate_words([f"from {edges[a]:.3g} to {edges[b]:.3g}" for a, b in runs])


def _head(figure: Figure) -> list[str]:
    """Returns the heads of a table's columns, one for each bin."""
    return [f"{a:.3g} to {b:.3g}" for a, b in itertools.pairwise(figure.curves.bins)]


def _counts(figure: Figure, colours: Mapping[str, int]) -> Markup:
    """Returns a table of the number of clips in each bin."""
    cell = "{{ n }}{% if few %} <small>{{ seeds }}</small>{% endif %}"
    rows = []
    for arm, counts in figure.counts.items():
        cells = [
            fill(cell, n=f"{n:,}", few=0 < k < counts.runs, seeds=counted(k, "seed"))
            for n, k in zip(counts.clips, counts.seeds, strict=True)
        ]
        rows.append([page.swatch(colours[arm], arm), *cells, f"{counts.outside:,}"])
    note = "Clips of all seeds in each bin; small: how many seeds have clips there, if not all do."
    return page.table(["Clips", *_head(figure), "in no bin"], rows, note, "bins")


def _numbers(figure: Figure, name: str, line: Line, colours: Mapping[str, int]) -> Markup:
    """Returns a table with the mean of each arm and the lead of each pair, in each bin."""
    percent = formatting.is_percent(name)
    times, unit = (100, "points") if percent else (1, formatting.metric(name).unit)

    def lead(found: Difference) -> Markup:
        shown = formatting.interval(found.lead.scaled(times))
        template = "<span{% if clear %} class=best{% endif %}>{{ shown }}</span>"
        return fill(template, clear=found.is_clear, shown=shown)

    def shown(values: Sequence[float]) -> list[str]:
        return [f"{v:.0%}" if percent else formatting.number(v) for v in values]

    rows = [
        [page.swatch(colours[arm], arm), *_cells(means, lambda v: formatting.interval(v, percent))]
        for arm, means in line.means.items()
    ]
    rows += [
        [fill("{{ arm }}, expected", arm=page.swatch(colours[arm], arm)), *shown(values)]
        for arm, values in figure.expected(name).items()
        if arm in line.means
    ]
    if line.differences:
        words = "Lead of the first over the second{{ unit }}; bold: clear after the correction"
        rows.append([fill(f"<small>{words}</small>", unit=f", {unit}" if unit else "")])
    for pair, differences in line.differences.items():
        first, second = (page.swatch(colours[arm], arm) for arm in pair)
        title = fill("{{ first }} over {{ second }}", first=first, second=second)
        rows.append([title, *_cells(differences, lead)])
    title = formatting.capitalised(formatting.metric(name).label)
    return page.table([title, *_head(figure)], rows, kind="bins")


def _cells(values: Sequence, show: Callable[..., Markup]) -> list[Markup | str]:
    return ["–" if value is None else show(value) for value in values]
