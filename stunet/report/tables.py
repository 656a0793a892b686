"""Writes the tables of a report: results of each arm, and settings in which arms differ."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from stunet import configs
from stunet.report import drawing, formatting, page
from stunet.report.conclusions import Ranking, keys_of_the_loss, metric_names
from stunet.report.formatting import TRAINING, VALIDATION
from stunet.report.markup import fill, join
from stunet.report.results import Arms, Run, by_seed, compared
from stunet.report.statistics import t_interval

# Arms whose operations differ by at most this share did equal work.
EQUAL_WORK = 0.05

_RESULTS_NOTE = (
    "Numbers are means over seeds ± half of the 95% interval by Student's t. Bold: the best mean, "
    "and means that the shared seeds do not tell from it after Holm's correction, which is for the "
    "number of pairs of variants that a metric compares in the sweep. FLOPs are counted from the "
    "trace of the network: matrix products and convolutions, the backward pass as twice the "
    "forward pass."
)

_ROW_NAME = """\
{{ title }}{% if notes %} <small>{{ notes }}</small>{% endif %}\
{% if description %}<br><small>{{ description }}</small>{% endif %}"""


def results(arms: Arms, colours: Mapping[str, int], rankings: Sequence[Ranking]) -> Markup:
    """Returns a table with a row for each metric and a column for each compared arm.

    Args:
        arms: runs of each arm.
        colours: number of each arm's colour.
        rankings: rankings of the arms that can be ranked.
    """
    parts = {name for runs in arms.values() for run in runs for name in run.made_of}
    arms = compared(arms)
    ranked = {ranking.metric: ranking for ranking in rankings}
    better = {k: v for runs in arms.values() for run in runs for k, v in run.better.items()}
    names = [n for n in metric_names(arms) if n not in (TRAINING, VALIDATION) or _compares(n, arms)]
    names.sort(key=lambda name: name not in better)
    rows = [_metric_row(name, arms, colours, better.get(name), ranked.get(name)) for name in names]
    first = next((i for i, name in enumerate(names) if name not in better), None)
    if first:
        rows.insert(first, [Markup("<small>Neither high nor low is better:</small>")])
    rows.append(["Seeds", *(str(len(runs)) for runs in arms.values()), ""])
    skipped = {arm: sum(run.skipped for run in runs) for arm, runs in arms.items()}
    if any(skipped.values()):
        rows.append(["Updates skipped, all seeds", *(f"{n:,}" for n in skipped.values()), ""])
    # An arm that is a part of another, or that was given real frames, did a part of the work.
    whole = [a for a, runs in arms.items() if runs[0].name not in parts and not runs[0].given]
    training = {arm: _mean(r.training_flops for r in runs) for arm, runs in arms.items()}
    rows.append(["Work to train one run", *map(formatting.flops, training.values())])
    rows[-1].append(_spread([training[arm] for arm in whole]))
    sampling = {arm: runs[0].sampling_flops for arm, runs in arms.items()}
    if any(sampling.values()):
        rows.append(["Work to sample one clip"])
        rows[-1] += [formatting.flops(v) if v else "–" for v in sampling.values()]
        rows[-1].append(_spread([sampling[arm] for arm in whole if sampling[arm]]))
    if any(runs[0].given for runs in arms.values()):
        given = [runs[0].given or "–" for runs in arms.values()]
        rows.append(["Real frames given", *given, Markup("<small>not ranked</small>")])
    head = ["", *(page.swatch(colours[arm], arm) for arm in arms), "mean, 95% interval, seeds"]
    return page.table(head, rows, _RESULTS_NOTE, "results")


def _compares(loss: str, arms: Arms) -> bool:
    """Tells whether arms can be compared by `loss`.

    Two arms or more must have it, and their settings must not change what a loss measures.
    """
    return sum(bool(by_seed(r, loss)) for r in arms.values()) > 1 and not keys_of_the_loss(arms)


def _metric_row(
    name: str,
    arms: Arms,
    colours: Mapping[str, int],
    better: str | None,
    ranking: Ranking | None,
) -> list[str]:
    values = {arm: list(by_seed(runs, name).values()) for arm, runs in arms.items()}
    means = {arm: t_interval(v) for arm, v in values.items() if v}
    best = {ranking.best, *ranking.unclear, *ranking.clear_alone} if ranking else set()
    percent = formatting.is_percent(name)
    cell = "<span{% if is_best %} class=best{% endif %}>{{ value }}</span>"
    cells = [
        fill(cell, is_best=arm in best, value=formatting.interval(means[arm], percent))
        if arm in means
        else "–"
        for arm in arms
    ]
    sketch = [(colours[arm], means[arm], values[arm]) for arm in means]
    return [_row_name(name, better), *cells, drawing.intervals(sketch, name)]


def _row_name(name: str, better: str | None) -> Markup:
    """Returns the name of a metric, its unit, whether high or low is better, and a description."""
    metric = formatting.metric(name)
    notes = [metric.unit] if metric.unit else []
    notes += [fill("<b>{{ better }} is better</b>", better=better)] if better else []
    return fill(
        _ROW_NAME,
        title=formatting.capitalised(metric.title),
        notes=join(notes, ", "),
        description=metric.description,
    )


def run_results(run: Run) -> Markup:
    """Returns the table of a single run: metrics, updates and floating-point operations."""
    rows = []
    for name in metric_names({run.title: [run]}):
        value = t_interval([run.metrics[name]])
        shown = formatting.interval(value, formatting.is_percent(name))
        rows.append([_row_name(name, run.better.get(name)), shown])
    rows.append(["Updates", f"{run.step:,} of {run.total_steps:,}"])
    if run.skipped:
        rows.append(["Updates skipped", f"{run.skipped:,}"])
    rows.append(["Work of the training", formatting.flops(run.training_flops)])
    if run.sampling_flops:
        rows.append(["Work to sample one clip", formatting.flops(run.sampling_flops)])
    return page.table(["", "value"], rows, kind="results")


def differences(groups: Mapping[str, Arms], colours: Mapping[str, int]) -> Markup:
    """Shows the settings in which groups and arms differ.

    If an arm combines several training runs, also says which ones.
    """
    settings = {
        (group, arm): runs[0].settings
        for group, arms in groups.items()
        for arm, runs in arms.items()
        if runs[0].settings
    }
    first = next(iter(settings.values()))
    keys = [k for k in first if k != "seed" and any(s[k] != first[k] for s in settings.values())]
    free = [key for key in keys if _is_free(key)]
    of_groups = [key for key in keys if key not in free and _groups_alone_differ(key, settings)]
    of_arms = [key for key in keys if key not in (*free, *of_groups)]
    text = _grid(of_groups, dict.fromkeys(group for group, _ in settings), escape, settings, 0)
    names = dict.fromkeys(arm for _, arm in settings)
    text += _grid(of_arms, names, lambda arm: page.swatch(colours[arm], arm), settings, 1)
    if not of_groups and not of_arms:
        text = Markup("<p>All runs have the same settings, apart from the seed.</p>")
    notes = []
    if free:
        notes.append(f"Also different, without an effect on any update: {', '.join(free)}.")
    if keys := dict.fromkeys(key for arms in groups.values() for key in keys_of_the_loss(arms)):
        notes.append(
            f"Losses cannot be compared between variants that differ in {', '.join(keys)}."
        )
    titles = {run.name: run.title for a in groups.values() for runs in a.values() for run in runs}
    made_of = {
        arm: [page.swatch(colours[t], t) for t in dict.fromkeys(map(titles.get, runs[0].made_of))]
        for arms in groups.values()
        for arm, runs in arms.items()
        if runs[0].made_of
    }
    for arm, parts in made_of.items():
        whole = page.swatch(colours[arm], formatting.capitalised(arm))
        parts = formatting.enumerate_words(parts)
        notes.append(fill("{{ whole }} is made of {{ parts }}.", whole=whole, parts=parts))
    return text + fill("{% for note in notes %}<p>{{ note }}</p>{% endfor %}", notes=notes)


def _is_free(key: str) -> bool:
    """Tells whether a config key has no effect on updates, such as how often to log."""
    return any(key == free or key.startswith(f"{free}.") for free in configs.MAY_CHANGE_ON_RESUME)


def _groups_alone_differ(key: str, settings: Mapping[tuple[str, str], Mapping]) -> bool:
    """Tells whether, within each group, all arms have the same value of a config key."""
    of_group = {}
    return all(of_group.setdefault(group, s[key]) == s[key] for (group, _), s in settings.items())


def _grid(
    keys: Sequence[str],
    columns: Iterable[str],
    named: Callable[[str], Markup],
    settings: Mapping[tuple[str, str], Mapping[str, Any]],
    place: int,
) -> Markup:
    """Returns a table of settings. Keys are rows, or columns if the table is narrower that way.

    Args:
        keys: keys of the config.
        columns: titles of groups or of arms.
        named: maps a title to its HTML.
        settings: settings of each (group, arm).
        place: 0 if `columns` are titles of groups, 1 if they are titles of arms.
    """
    if not keys:
        return Markup()

    def cell(key: str, column: str) -> Markup:
        found = {of: s[key] for of, s in settings.items() if of[place] == column}
        values = {str(value): group for (group, _), value in found.items()}
        if len(values) == 1:
            return escape(next(iter(values)))
        of_group = "<small>{{ group }}:</small> {{ value }}"
        lines = [fill(of_group, group=group, value=str(v)) for (group, _), v in found.items()]
        return Markup("<br>").join(lines)

    columns = list(columns)
    shown = [fill("<code>{{ key }}</code>", key=key) for key in keys]
    titles = [named(column) for column in columns]
    cells = [[cell(key, column) for column in columns] for key in keys]
    if len(columns) > max(6, len(keys)):
        shown, titles = titles, shown
        cells = [list(row) for row in zip(*cells, strict=True)]
    return page.table(["", *titles], [[name, *row] for name, row in zip(shown, cells, strict=True)])


def _spread(values: Sequence[float]) -> Markup:
    """Says by how much the floating-point operations of arms differ."""
    if len(values) < 2:
        return Markup()
    apart = max(values) / min(values) - 1
    if apart > EQUAL_WORK:
        words = f"they differ by {apart:.1%}"
    else:
        words = f"equal within {apart:.1%}" if apart else "equal"
    return fill("<small>{{ words }}</small>", words=words)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
