"""Writes the report of a sweep, or of a run, as one page of HTML that needs no network.

The page begins with what a reader wants to know first: which arm is best. The same directory gives
the same page, byte for byte.
"""

import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from stunet.files import atomic, refusal_explained
from stunet.formatting import counted
from stunet.report import (
    binning,
    covariates,
    curves,
    drawing,
    formatting,
    page,
    pictures,
    results,
    tables,
)
from stunet.report.conclusions import Ranking, rank, say
from stunet.report.markup import fill, join
from stunet.report.results import Arms, Results, Run
from stunet.source_code import commit
from stunet.sweep.curves import Curves

# Arms that the first sentence names; of more, it says how many there are.
_MOST_NAMES = 6

_ALONE = "<div class=answer><div><div class=words>{{ words }}</div></div></div>"

_ANSWER = "<div><div class=words>{{ words }}</div>{{ picture }}</div>"

_COMPARED = """\
Compared: {{ words }}{% if within %}, in {{ within }}{% endif %}\
{% if seeds %}, with {{ seeds }} seed{% if seeds != "1" %}s{% endif %} each{% endif %}. \
{{ runs }}{% if when %}, begun on {{ when }}{% endif %}."""

_PREDICTED = """\
<div class=predicted><p>What was predicted, noted on {{ days }}:</p>\
<ul>{% for sentence, is_late in predictions %}<li>{{ sentence }}\
{% if is_late %} <small>(noted after the first training had begun)</small>{% endif %}</li>\
{% endfor %}</ul></div>"""

_NO_CURVES = "<p>No finished run has values of {{ over }} for its clips yet.</p>"

_MADE_BY = """\
<p>The runs: <code>{{ sweep }}</code>{% if begun %}, begun at commit {{ begun }}{% endif %}</p>\
<p>This page: <code>{{ command }}</code>{% if now %} at commit {{ now }}{% endif %}</p>"""


def write_report(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the page of a sweep's directory, or of a single run's, to `out`.

    Raises:
        UserError: there is nothing to report, or `out` may not be written.
    """
    found = results.read(workdir)
    command = ["stunet", "report", str(workdir)]
    if out != workdir / "report.html":
        command += ["--out", str(out)]
    text = draw(found, workdir, shlex.join(command))
    with refusal_explained(out, "choose another --out"), atomic(out) as partial:
        # Names of files and runs may hold characters that UTF-8 cannot encode.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def draw(found: Results, workdir: pathlib.Path, command: str) -> Markup:
    """Returns the HTML of the page.

    Args:
        found: the runs in `workdir` and their results.
        workdir: directory of the sweep or of the run.
        command: command line that makes the page again.
    """
    with formatting.with_own_metrics(found.own_metrics()):
        return _draw_sweep(found, workdir, command) if found.manifest else _draw_run(found, workdir)


def _draw_sweep(found: Results, workdir: pathlib.Path, command: str) -> Markup:
    groups, colours = arrange(found)
    finished = {group: results.finished(arms) for group, arms in groups.items()}
    rivals = {group: results.rivals(done) for group, done in finished.items()}
    rankings = rank(rivals)
    answers, sections = [], _curves(found.manifest.curves, finished, colours)
    for group, arms in groups.items():
        done = finished[group]
        answers.append(_answer(rivals[group], rankings[group], colours, group))
        heading = formatting.capitalised(group) or "Results"
        sections.append(fill("<h2>{{ heading }}</h2>", heading=heading))
        size = pictures.MOST_BYTES // len(groups)
        for title, text in {
            "Sample clips": pictures.samples(results.compared(arms), colours, size),
            "Results in numbers": tables.results(done, colours, rankings[group]),
            "Training": curves.losses(arms, colours),
        }.items():
            heading = fill("<h3>{{ title }}</h3>", title=title)
            sections += [heading + text] if text else []
    name = workdir.resolve().name
    title = found.manifest.question or f"Sweep {name}"
    return page.page(
        title,
        [
            fill("<h1>{{ title }}</h1>", title=title),
            fill("<p>{{ compared }}</p>", compared=_compared(found)),
            _unfinished(found),
            _predictions(found),
            fill("<div class=answer>{{ answers }}</div>", answers=join(answers)),
            *sections,
            Markup("<h2>What differs</h2>"),
            tables.differences(groups, colours),
            Markup("<h2>How this was made</h2>"),
            _made_by(found, command),
        ],
    )


def _draw_run(found: Results, workdir: pathlib.Path) -> Markup:
    (run,) = found.runs
    arms, colours = {run.title: [run]}, {run.title: 0}
    title = f"Training run {workdir.resolve().name}"
    when = formatting.days([run.date] if run.date else [])
    state = f"Update {run.step:,} of {run.total_steps:,}" + (f", begun on {when}." if when else ".")
    means = [
        f"{formatting.capitalised(formatting.metric(n).title)}: {formatting.metric(n).show(v)}"
        for n, v in run.metrics.items()
    ]
    samples = pictures.samples(arms, colours)
    train = shlex.join(["stunet", "train", "--config", str(workdir / "config.json")])
    return page.page(
        title,
        [
            fill("<h1>{{ title }}</h1><p>{{ state }}</p>", title=title, state=state),
            _unfinished(found),
            fill(_ALONE, words=_paragraphs(means)),
            Markup("<h2>Sample clips</h2>") + samples if samples else Markup(),
            Markup("<h2>Training</h2>") + curves.losses(arms, colours),
            Markup("<h2>Results in numbers</h2>") + tables.run_results(run),
            Markup("<h2>How to train it again</h2>"),
            fill("<p><code>{{ train }} --workdir NEW_FOLDER</code></p>", train=train),
        ],
    )


def arrange(found: Results) -> tuple[dict[str, Arms], dict[str, int]]:
    """Returns the runs by group and arm, and the number of each arm's colour.

    Arms are in the order of their colours.
    """
    groups = found.groups()
    colours = choose_colours(groups)
    arranged = {
        group: {arm: arms[arm] for arm in colours if arm in arms} for group, arms in groups.items()
    }
    return arranged, colours


def choose_colours(groups: Mapping[str, Arms]) -> dict[str, int]:
    """Gives each arm a colour number, the same in all groups.

    Arms that can be ranked get the lowest numbers. Next come arms that cannot be ranked because
    they were given a part of the real clips. Arms that are only a part of another arm, such as one
    network of a cascade, come last.
    """
    found = {}
    for choose in (results.rivals, results.compared, dict):
        for arms in groups.values():
            for arm in choose(arms):
                found.setdefault(arm, len(found))
    return found


def _curves(
    asked: Sequence[Curves], groups: Mapping[str, Arms], colours: Mapping[str, int]
) -> list[Markup]:
    """Shows the curves over a property of each clip that the sweep asks for.

    Args:
        asked: what the sweep asks for.
        groups: finished runs of each arm of each group.
        colours: number of each arm's colour.
    """
    sections = []
    for wanted in asked:
        sections.append(fill("<h2>{{ title }}</h2>", title=wanted.title))
        figures = binning.measure(wanted, groups)
        if not figures:
            over = " or ".join(formatting.metric(name).title for name in wanted.over)
            sections.append(fill(_NO_CURVES, over=over))
        for group, figure in figures.items():
            title = formatting.capitalised(group)
            sections.append(covariates.section(figure, colours, title))
    return sections


def _predictions(found: Results) -> Markup:
    """Shows what the author of the sweep expected, and whether it was noted before the training."""
    noted = found.manifest.predictions
    if not noted:
        return Markup()
    began = min((run.date for run in found.runs if run.date), default=math.inf)
    return fill(
        _PREDICTED,
        days=formatting.days([prediction.noted for prediction in noted]),
        predictions=[(p.sentence, p.noted > began) for p in noted],
    )


def _answer(
    arms: Arms, rankings: Sequence[Ranking], colours: Mapping[str, int], group: str
) -> Markup:
    """Says which arm is best, with a bar chart of the first ranking."""
    if not arms:
        return Markup()
    sentences = say(rankings, lambda arm: page.swatch(colours[arm], arm))
    if group:
        named = "<b>{{ group }}:</b> {{ sentence }}"
        group = formatting.capitalised(group)
        sentences[0] = fill(named, group=group, sentence=sentences[0])
    else:
        sentences[0] = formatting.capitalised(sentences[0])
    picture = _picture(rankings[0], colours) if rankings else ""
    return fill(_ANSWER, words=_paragraphs(sentences), picture=picture)


def _picture(ranking: Ranking, colours: Mapping[str, int]) -> Markup:
    metric = formatting.metric(ranking.metric)
    rows = [
        (colours[arm], arm, mean, metric.show(mean.mean)) for arm, mean in ranking.means.items()
    ]
    most = 1.0 if metric.claim else 0.0
    caption = f"{metric.label}, {ranking.better} is better; lines are 95% intervals over seeds"
    return fill(
        "<figure>{{ bars }}<figcaption>{{ caption }}</figcaption></figure>",
        bars=drawing.bars(rows, metric.label, most),
        caption=formatting.capitalised(caption),
    )


def _paragraphs(sentences: list[str]) -> Markup:
    return join([fill("<p>{{ sentence }}</p>", sentence=sentence) for sentence in sentences])


def _compared(found: Results) -> Markup:
    """Says which arms were compared, and when their training began."""
    groups = found.groups()
    names = dict.fromkeys(arm for arms in groups.values() for arm in results.rivals(arms))
    if len(names) > _MOST_NAMES:
        words = counted(len(names), "variant")
    else:
        words = formatting.enumerate_words([formatting.with_article(name) for name in names])
    seeds = {len(runs) for arms in groups.values() for runs in results.rivals(arms).values()}
    seeds = " to ".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else ""
    named = [group for group in groups if group]
    within = f"{counted(len(named), 'group')} ({'; '.join(named)})" if named else ""
    trained = [run for run in found.runs if run.settings]
    when = formatting.days([run.date for run in trained if run.date])
    return fill(
        _COMPARED,
        words=words,
        within=within,
        seeds=seeds,
        runs=counted(len(trained), "training run"),
        when=when,
    )


def _made_by(found: Results, command: str) -> Markup:
    sweep = shlex.join(["stunet", *found.manifest.command])
    begun = found.manifest.commit
    return fill(_MADE_BY, sweep=sweep, begun=begun, command=command, now=commit())


def _unfinished(found: Results) -> Markup:
    """Names the runs that are not finished."""

    def state(run: Run) -> str:
        return f"{run.name or run.arm} is at update {run.step:,} of {run.total_steps:,}"

    parts = [state(run) for run in found.runs if not run.is_finished]
    parts += [f"{name} has not begun" for name in found.missing]
    if not parts:
        return Markup()
    return fill("<p><b>Not finished:</b> {{ parts }}.</p>", parts="; ".join(parts))
