"""The report of a sweep or a run: one page of HTML that needs no network, and says first what a
reader wants to know. The same directory gives the same page, byte for byte."""

import html
import itertools
import math
import pathlib
import shlex
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np

from stunet import configs
from stunet.data import media, sources
from stunet.errors import UserError
from stunet.evaluate.metrics import METRICS
from stunet.files import atomic, refusal_explained
from stunet.report import drawing, page, results
from stunet.report.conclusions import Arms, answers, by_seed, names, unlike, value_of
from stunet.report.drawing import Curve
from stunet.report.results import TRAINING, VALIDATION, Results, Run
from stunet.report.statistics import t_interval
from stunet.sweep.workdir import commit
from stunet.train.parts import make_parts

# Of the pictures, before base64 makes them a third larger.
_MOST_BYTES = 3_400_000
# Points of a training curve: each is a mean over the updates around it.
_BINS = 60
# Arms whose training took the same operations but for this share did equal work.
_EQUAL = 0.05


def write_report(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the page of a sweep's directory, or of a single run's, to `out`.

    Raises:
        UserError: there is nothing to report, or `out` may not be written.
    """
    found = results.read(workdir)
    command = ["stunet", "report", str(workdir)]
    if out != workdir / "report.html":
        command += ["--out", str(out)]
    text = draw(found, workdir.resolve().name, shlex.join(command))
    with refusal_explained(out, "choose another --out"), atomic(out) as partial:
        partial.write_text(text)


def draw(found: Results, title: str, command: str) -> str:
    """The page, of what has been read; `command` is the one that asked for it."""
    groups = found.groups()
    count = f"{_plural(sum(map(len, groups.values())), 'arm')}, {_plural(len(found.runs), 'run')}"
    said, sections = "", []
    for group, arms in groups.items():
        # Colours go to what is compared first.
        whole = _whole(arms)
        arms = whole | {arm: runs for arm, runs in arms.items() if arm not in whole}
        said += _answers(arms, group)
        of = f": {html.escape(group)}" if group else ""
        budget = _MOST_BYTES // len(groups)
        sections += [
            f"<h2>Final figures{of}</h2>" + _figures(_final(arms), list(arms)),
            f"<h2>Curves{of}</h2>" + _curves(arms),
            *([f"<h2>Samples{of}</h2>{shown}"] if (shown := _pictures(arms, budget)) else []),
        ]
    everything = {runs[0].arm: runs for arms in groups.values() for runs in arms.values()}
    return page.page(
        f"{title}: report",
        [
            f"<h1>{html.escape(title)}</h1><p class=note>{count}</p>",
            _unfinished(found),
            f"<div class=answer>{said}</div>",
            *sections,
            "<h2>What differs</h2>" + _differences(everything),
            "<h2>How this was made</h2>" + _made_by(found, command),
        ],
    )


def _final(arms: Arms) -> Arms:
    """What is finished, or all if nothing is: the rest would pass for worse than it is."""
    return {arm: done for arm, runs in arms.items() if (done := _finished(runs))} or arms


def _answers(arms: Arms, group: str) -> str:
    """Which arm is best, of those that were given nothing of the real clips."""
    rivals = {arm: runs for arm, runs in _whole(_final(arms)).items() if not runs[0].given}
    lines = answers(rivals, list(arms)) if rivals else []
    head = f"<p><b>{html.escape(group)}</b></p>" if group else ""
    return head + "".join(f"<p>{line}</p>" for line in lines)


def _whole(arms: Arms) -> Arms:
    """The arms but those that others are made of and that were not evaluated themselves."""
    parts = {name for runs in arms.values() for run in runs for name in run.after}
    losses = {TRAINING, VALIDATION}
    return {
        arm: runs
        for arm, runs in arms.items()
        if runs[0].name not in parts or set(runs[0].figures) - losses
    }


def _figures(arms: Arms, order: Sequence[str]) -> str:
    """A column for each arm, a row for each figure, and a sketch of the row's intervals."""
    # What another arm is made of did but a part of the work.
    parts = {name for runs in arms.values() for run in runs for name in run.after}
    arms = _whole(arms)
    head = ["", *(page.swatch(order.index(arm), arm) for arm in arms), "means, intervals, seeds"]
    better = {k: v for runs in arms.values() for run in runs for k, v in run.better.items()}
    rows = []
    for name in names(arms):
        values = {arm: list(by_seed(runs, name).values()) for arm, runs in arms.items()}
        means = {arm: t_interval(v) for arm, v in values.items() if v}
        best = None
        if name in better and len(means) > 1:
            pick = min if better[name] == "lower" else max
            rivals = [arm for arm in means if not arms[arm][0].given]
            best = pick(rivals, key=lambda arm: means[arm].mean) if rivals else None
        cells = [
            f"<span{' class=best' if arm == best else ''}>{value_of(means[arm])}</span>"
            if arm in means
            else "–"
            for arm in arms
        ]
        sketch = [(order.index(arm), means[arm], values[arm]) for arm in means]
        words = METRICS[name].label if name in METRICS else ""
        words = f"<br><small class=note>{html.escape(words)}</small>" if words else ""
        side = f" <small class=note>({better[name]} is better)</small>" if name in better else ""
        rows.append([html.escape(name) + side + words, *cells, drawing.intervals(sketch, name)])
    rows.append(["seeds", *(str(len(runs)) for runs in arms.values()), ""])
    training = {arm: _mean(r.training_flops for r in runs) for arm, runs in arms.items()}
    rivals = [arm for arm, runs in arms.items() if runs[0].name not in parts and not runs[0].given]
    spread = _spread([training[arm] for arm in rivals])
    rows.append(["training FLOPs of a run", *map(_flops, training.values()), spread])
    sampling = {arm: runs[0].sampling_flops for arm, runs in arms.items()}
    if any(sampling.values()):
        shown = [_flops(v) if v else "–" for v in sampling.values()]
        spread = _spread([sampling[arm] for arm in rivals if sampling[arm]])
        rows.append(["sampling FLOPs of a clip", *shown, spread])
    if any(runs[0].given for runs in arms.values()):
        given = [html.escape(runs[0].given) or "–" for runs in arms.values()]
        rows.append(["given of the real clips", *given, "not ranked"])
    return page.table(
        head,
        rows,
        "Means over seeds ± half of the 95% interval by Student's t, not corrected for the number "
        "of comparisons. Whether two arms differ is judged by their difference on the same seeds. "
        "Bold: the best mean. The training loss is the mean over the last tenth of the updates. "
        "FLOPs are counted from the trace of the network: matrix products and convolutions, the "
        "backward pass as twice the forward pass.",
    )


def _curves(arms: Arms) -> str:
    runs = [run for group in arms.values() for run in group if run.step_flops]
    if not runs:
        return "<p class=note>Nothing here was trained by itself.</p>"
    costs = [run.step_flops for run in runs]
    # Where an update of one arm costs more than another's, updates are no measure of the effort.
    by_flops = max(costs) > (1 + _EQUAL) * min(costs)
    label = "training FLOPs" if by_flops else "updates"
    figures = []
    for key, name in (("loss", TRAINING), ("val/loss", VALIDATION)):
        curves = []
        for i, group in enumerate(arms.values()):
            curve = _curve(i, [run for run in group if run.lines], key, by_flops)
            curves += [curve] if curve else []
        if curves:
            figures.append(f"<figure>{drawing.chart(curves, label, name)}</figure>")
    legend = " &nbsp; ".join(
        page.swatch(i, arm) for i, (arm, group) in enumerate(arms.items()) if group[0].lines
    )
    return (
        f"<p>{legend}</p><div class=charts>{''.join(figures)}</div><p class=note>Lines are means "
        "over seeds. Bands are 95% intervals of three seeds or more; of two seeds each has a thin "
        f"line. A course of more than {_BINS} points is shown by as many means.</p>"
    )


def _curve(arm: int, runs: Sequence[Run], key: str, by_flops: bool) -> Curve | None:
    """The mean course of the arm's runs, where all of them have a value."""
    if not runs:
        return None
    points = max(sum(key in line for line in run.lines) for run in runs)
    width = max(run.step for run in runs) / _BINS if points > _BINS else 1
    courses = []
    for run in runs:
        bins = {}
        for line in run.lines:
            if key in line and math.isfinite(line[key]):
                bins.setdefault(math.ceil(line["step"] / width), []).append(line[key])
        courses.append({b: _mean(values) for b, values in bins.items()})
    shared = sorted(b for b in courses[0] if all(b in course for course in courses))
    if not shared:
        return None
    unit = runs[0].step_flops if by_flops else 1
    seeds = [[course[b] for b in shared] for course in courses]
    y = [t_interval(values) for values in zip(*seeds, strict=True)]
    return Curve(arm, [b * width * unit for b in shared], y, seeds)


def _pictures(arms: Arms, budget: int) -> str:
    """Samples of the first seeds, then of the next, up to so many bytes; "" if there are none."""
    runs = [run for group in arms.values() for run in group]
    cells, left_out = {}, []
    real = next((r for run in runs if run.config and (r := _real(run.config))), None)
    if real:
        budget -= sum(map(len, real))
    for turn in range(max(map(len, arms.values()))):
        for i, (arm, group) in enumerate(arms.items()):
            if turn >= len(group) or not (group[turn].gif or group[turn].xt):
                continue
            run = group[turn]
            files = [(f, k) for f, k in ((run.gif, "gif"), (run.xt, "png")) if f]
            size = sum(file.stat().st_size for file, _ in files)
            if size > budget:
                left_out.append(run.name)
                continue
            budget -= size
            name = arm if run.seed is None else f"{arm}, seed {run.seed}"
            images = "".join(page.image(f, k, f"samples of {run.name or name}") for f, k in files)
            cells[i, turn] = (
                f"<figure><figcaption>{page.swatch(i, name)}</figcaption>{images}</figure>"
            )
    if not cells:
        return ""
    rows = {}
    for (_, turn), cell in sorted(cells.items()):
        rows.setdefault(turn, []).append(cell)
    if real:
        shown = page.image(real[0], "gif", "real clips") + page.image(real[1], "png", "real clips")
        first = f"<figure><figcaption>real, held out</figcaption>{shown}</figure>"
        rows[min(rows)].insert(0, first)
    note = (
        "Above the clips, below their X-T slices: one row of pixels, time running down, in which "
    )
    note += "steady motion is a straight slanted line."
    if left_out:
        note += f" Left out, to keep the page small: {html.escape(', '.join(left_out))}."
    order = itertools.chain(["first"], itertools.repeat("next"))
    body = "".join(
        f"<details{' open' if which == 'first' else ''}><summary>the {which} seed of each arm"
        f"</summary><div class=pictures>{''.join(row)}</div></details>"
        for which, (_, row) in zip(order, sorted(rows.items()), strict=False)
    )
    return f"<p class=note>{note}</p>{body}"


def _real(config: configs.Experiment) -> tuple[bytes, bytes] | None:
    """GIF and X-T slices of the held-out clips whose captions the samples were drawn for."""
    try:
        parts = make_parts(config)
        held_out = sources.make_source(parts.dataset, "val")
        source = sources.representatives(held_out, parts.preview_clips, parts.dataset)
        examples = [source[i] for i in range(min(parts.preview_clips, len(source)))]
    except UserError:  # The data need not be where the report is made.
        return None
    clips, captions = [e["video"] for e in examples], [e["caption"] for e in examples]
    with tempfile.TemporaryDirectory() as directory:
        gif, xt = pathlib.Path(directory, "real.gif"), pathlib.Path(directory, "real.png")
        media.write_gif(gif, np.stack(clips), parts.denoiser.clip.frame_rate, captions)
        media.write_xt(xt, np.stack(clips), captions)
        return gif.read_bytes(), xt.read_bytes()


def _differences(arms: Arms) -> str:
    """The keys that differ between arms, and what each arm has."""
    trained = {arm: runs[0].config for arm, runs in arms.items() if runs[0].config}
    rows = []
    if trained:
        values = {arm: configs.flatten(config) for arm, config in trained.items()}
        for key in values[next(iter(values))]:
            column = [values[arm][key] for arm in trained]
            if key != "seed" and any(value != column[0] for value in column):
                rows.append([key, *(html.escape(str(value)) for value in column)])
    order = list(arms)
    head = ["key", *(page.swatch(order.index(arm), arm) for arm in trained)]
    text = page.table(head, rows) if rows else "<p>No key differs but the seed.</p>"
    for arm, runs in arms.items():
        if runs[0].after:
            parts = ", ".join(map(html.escape, runs[0].after))
            text += f"<p>{page.swatch(order.index(arm), arm)} is made of {parts}.</p>"
    if keys := unlike(arms):
        text += f"<p>Losses cannot be compared between arms, which differ in {', '.join(keys)}.</p>"
    return text


def _made_by(found: Results, command: str) -> str:
    lines = []
    if found.manifest:
        sweep = html.escape(shlex.join(["stunet", *found.manifest.command]))
        begun = f", begun at commit {found.manifest.commit}" if found.manifest.commit else ""
        lines.append(f"<p>The runs: <code>{sweep}</code>{html.escape(begun)}</p>")
    now = commit()
    at = f" at commit {now}" if now else ""
    lines.append(f"<p>This page: <code>{html.escape(command)}</code>{html.escape(at)}</p>")
    return "".join(lines)


def _unfinished(found: Results) -> str:
    """Names what the figures leave out."""
    parts = [
        f"{run.name or run.arm} is at update {run.step} of {make_parts(run.config).events.steps}"
        for run in found.runs
        if not run.finished
    ] + [f"{name} has not begun" for name in found.missing]
    if not parts:
        return ""
    return f"<p><b>Not finished:</b> {html.escape('; '.join(parts))}.</p>"


def _finished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.finished]


def _flops(value: float) -> str:
    """As "1.333 T", for 1.333e12."""
    power = min(int(math.log10(value)) // 3, 7) if value >= 1 else 0
    return f"{value / 1000**power:.4g} {' kMGTPEZ'[power]}".rstrip()


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _spread(values: Sequence[float]) -> str:
    """Whether the arms did equal work."""
    if len(values) < 2:
        return ""
    apart = max(values) / min(values) - 1
    if apart > _EQUAL:
        return f"they differ by {apart:.1%}"
    return f"equal within {apart:.1%}" if apart else "equal"


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
