"""Writes the report of a sweep, or of a run, as one page of HTML that needs no network.

The page begins with what a reader wants to know first: which arm is best. The same directory gives
the same page, byte for byte.
"""

import html
import pathlib
import shlex
from collections.abc import Mapping

from stunet.files import atomic, refusal_explained
from stunet.report import curves, drawing, formatting, page, pictures, results, tables
from stunet.report.conclusions import Ranking, rank, say
from stunet.report.results import Arms, Results, Run
from stunet.sweep.workdir import commit

# Arms that the first sentence names; of more, it says how many there are.
_MOST_NAMES = 6


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
        partial.write_text(text)


def draw(found: Results, workdir: pathlib.Path, command: str) -> str:
    """Returns the HTML of the page.

    Args:
        found: the runs in `workdir` and their results.
        workdir: directory of the sweep or of the run.
        command: command line that makes the page again.
    """
    return _draw_sweep(found, workdir, command) if found.manifest else _draw_run(found, workdir)


def _draw_sweep(found: Results, workdir: pathlib.Path, command: str) -> str:
    groups = found.groups()
    colours = choose_colours(groups)
    answers, sections = "", []
    for group, arms in groups.items():
        arms = dict(sorted(arms.items(), key=lambda item: colours[item[0]]))
        done = results.finished(arms)
        answers += _answer(results.rivals(done), colours, group)
        heading = formatting.capitalised(group) or "Results"
        sections.append(f"<h2>{html.escape(heading)}</h2>")
        size = pictures.MOST_BYTES // len(groups)
        for title, text in {
            "Sample clips": pictures.samples(results.compared(arms), colours, size),
            "Results in numbers": tables.results(done, colours),
            "Training": curves.losses(arms, colours),
        }.items():
            sections += [f"<h3>{title}</h3>{text}"] if text else []
    name = workdir.resolve().name
    title = found.manifest.question or f"Sweep {name}"
    return page.page(
        title,
        [
            f"<h1>{html.escape(title)}</h1>",
            f"<p>{_compared(found)}</p>",
            _unfinished(found),
            f"<div class=answer>{answers}</div>",
            *sections,
            "<h2>What differs</h2>",
            tables.differences(groups, colours),
            "<h2>How this was made</h2>",
            _made_by(found, command),
        ],
    )


def _draw_run(found: Results, workdir: pathlib.Path) -> str:
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
            f"<h1>{html.escape(title)}</h1><p>{state}</p>",
            _unfinished(found),
            f"<div class=answer><div><div class=words>{_paragraphs(means)}</div></div></div>",
            f"<h2>Sample clips</h2>{samples}" if samples else "",
            f"<h2>Training</h2>{curves.losses(arms, colours)}",
            f"<h2>Results in numbers</h2>{tables.run_results(run)}",
            "<h2>How to train it again</h2>",
            f"<p><code>{html.escape(train)} --workdir NEW_FOLDER</code></p>",
        ],
    )


def choose_colours(groups: Mapping[str, Arms]) -> dict[str, int]:
    """Gives each arm a colour number, the same in all groups.

    Arms that can be ranked get the lowest numbers. Arms that were given a part of the real clips
    come next. Arms that are only parts of others, such as one network of a cascade, come last.
    """
    found = {}
    for choose in (results.rivals, results.compared, dict):
        for arms in groups.values():
            for arm in choose(arms):
                found.setdefault(arm, len(found))
    return found


def _answer(arms: Arms, colours: Mapping[str, int], group: str) -> str:
    """Says which arm is best, with a bar chart of the first ranking."""
    if not arms:
        return ""
    rankings = rank(arms)
    sentences = say(rankings, lambda arm: page.swatch(colours[arm], arm))
    if group:
        sentences[0] = f"<b>{html.escape(formatting.capitalised(group))}:</b> {sentences[0]}"
    else:
        sentences[0] = formatting.capitalised(sentences[0])
    picture = _picture(rankings[0], colours) if rankings else ""
    return f"<div><div class=words>{_paragraphs(sentences)}</div>{picture}</div>"


def _picture(ranking: Ranking, colours: Mapping[str, int]) -> str:
    metric = formatting.metric(ranking.metric)
    rows = [
        (colours[arm], arm, mean, metric.show(mean.mean)) for arm, mean in ranking.means.items()
    ]
    most = 1.0 if metric.claim else 0.0
    caption = f"{metric.label}, {ranking.better} is better; lines are 95% intervals over seeds"
    return (
        f"<figure>{drawing.bars(rows, metric.label, most)}"
        f"<figcaption>{html.escape(formatting.capitalised(caption))}</figcaption></figure>"
    )


def _paragraphs(sentences: list[str]) -> str:
    return "".join(f"<p>{sentence}</p>" for sentence in sentences)


def _compared(found: Results) -> str:
    """Says which arms were compared, and when their training began."""
    groups = found.groups()
    names = dict.fromkeys(arm for arms in groups.values() for arm in results.rivals(arms))
    if len(names) > _MOST_NAMES:
        words = formatting.plural(len(names), "variant")
    else:
        words = formatting.enumerate_words([formatting.with_article(name) for name in names])
    seeds = {len(runs) for arms in groups.values() for runs in results.rivals(arms).values()}
    seeds = " to ".join(map(str, sorted({min(seeds), max(seeds)}))) if seeds else ""
    within = formatting.enumerate_words([group for group in groups if group])
    trained = [run for run in found.runs if run.settings]
    when = formatting.days([run.date for run in trained if run.date])
    return html.escape(
        f"Compared: {words}"
        + (f", on {within}" if within else "")
        + (f", with {seeds} seed{'' if seeds == '1' else 's'} each" if seeds else "")
        + f". {formatting.plural(len(trained), 'training run')}"
        + (f", begun on {when}." if when else ".")
    )


def _made_by(found: Results, command: str) -> str:
    sweep = html.escape(shlex.join(["stunet", *found.manifest.command]))
    begun = f", begun at commit {found.manifest.commit}" if found.manifest.commit else ""
    now = commit()
    at = f" at commit {now}" if now else ""
    return (
        f"<p>The runs: <code>{sweep}</code>{html.escape(begun)}</p>"
        f"<p>This page: <code>{html.escape(command)}</code>{html.escape(at)}</p>"
    )


def _unfinished(found: Results) -> str:
    """Names the runs that are not finished."""

    def state(run: Run) -> str:
        return f"{run.name or run.arm} is at update {run.step:,} of {run.total_steps:,}"

    parts = [state(run) for run in found.runs if not run.is_finished]
    parts += [f"{name} has not begun" for name in found.missing]
    if not parts:
        return ""
    return f"<p><b>Not finished:</b> {html.escape('; '.join(parts))}.</p>"
