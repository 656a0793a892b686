"""What the figures say, in words: which arm is best, and from which others it cannot be told."""

import html
import math
from collections.abc import Mapping, Sequence

from stunet import configs
from stunet.report import page
from stunet.report.drawing import number
from stunet.report.results import TRAINING, VALIDATION, Run
from stunet.report.statistics import Interval, paired_difference, t_interval

# Sentences at the top.
_MOST_ANSWERS = 4

Arms = Mapping[str, Sequence[Run]]


def answers(arms: Arms, order: Sequence[str]) -> list[str]:
    """The best arm by each figure that has a better side, against all others, in sentences (HTML).

    Figures of evaluations come before losses, which are not the question itself. `order` is that of
    all arms, by which they have their colours.
    """
    if len(arms) == 1:
        ((_, runs),) = arms.items()
        means = {name: t_interval(list(by_seed(runs, name).values())) for name in names(arms)}
        return [f"{html.escape(n)}: {value_of(i)}" for n, i in means.items()][:_MOST_ANSWERS]
    better = {k: v for runs in arms.values() for run in runs for k, v in run.better.items()}
    told = [name for name in names(arms) if name in better]
    lines, seen = [], []
    for name in told:
        values = {arm: by_seed(runs, name) for arm, runs in arms.items()}
        values = {arm: v for arm, v in values.items() if v}
        # What says the same of every run says nothing more.
        if values in seen:
            continue
        seen.append(values)
        if len(values) < 2 or (name in (TRAINING, VALIDATION) and unlike(arms)):
            continue
        # That of clips seen already, which says less.
        if name == TRAINING and VALIDATION in told:
            continue
        lines.append(_answer(name, better[name], _ranked(values, better[name]), values, order))
    return lines[:_MOST_ANSWERS] or ["No figure is shared by two arms."]


def _ranked(values: Mapping[str, Mapping[int | None, float]], side: str) -> list[str]:
    """The best arm, and the others from near to far.

    Two arms are compared on the seeds of both, by which it is also judged whether they differ:
    means over unequal seeds may say the opposite. Where there is no such seed, the means are left.
    """

    def gap(one: str, other: str) -> float:
        paired = paired_difference(values[one], values[other])
        return paired.mean if paired else mean(one) - mean(other)

    def mean(arm: str) -> float:
        return t_interval(list(values[arm].values())).mean

    sign = 1 if side == "lower" else -1
    best, *others = values
    for arm in others:
        if sign * gap(arm, best) < 0:
            best = arm
    others = [arm for arm in values if arm != best]
    return [best, *sorted(others, key=lambda arm: sign * gap(arm, best))]


def _answer(name: str, side: str, ranked: Sequence[str], values, arms: Sequence[str]) -> str:
    best, *others = ranked
    means = {arm: t_interval(list(values[arm].values())) for arm in ranked}
    shown = {arm: f"<b>{page.swatch(arms.index(arm), arm)}</b>" for arm in ranked}
    head = f"{'Lowest' if side == 'lower' else 'Highest'} {html.escape(name)}: {shown[best]}, "
    head += f"{value_of(means[best])}. "
    sign = 1 if side == "lower" else -1
    told, opposed, untold, single = [], [], [], []
    for arm in others:
        gap = paired_difference(values[arm], values[best])
        if gap is None or gap.half is None:
            single.append(shown[arm])
        elif gap.excludes_zero():
            # With unequal seeds, A may beat B, B beat C, and C beat A.
            way = told if sign * gap.mean > 0 else opposed
            way.append(f"{shown[arm]} by {value_of(Interval(abs(gap.mean), gap.half, gap.n))}")
        else:
            untold.append(f"{shown[arm]} ({value_of(gap)})")
    worse = "higher" if side == "lower" else "lower"
    on_both = f"Clearly {side} on the seeds of both"
    return head + " ".join(
        sentence
        for sentence in (
            f"Clearly {worse}: {', '.join(told)}." if told else "",
            f"{on_both}: {', '.join(opposed)}." if opposed else "",
            f"Not told apart from it: {', '.join(untold)}." if untold else "",
            f"A single seed cannot rank: {', '.join(single)}." if single else "",
        )
        if sentence
    )


def unlike(arms: Arms) -> list[str]:
    """The keys whose differences between arms keep losses from being compared."""
    trained = [configs.flatten(runs[0].config) for runs in arms.values() if runs[0].config]
    return [
        key
        for key in (trained[0] if trained else ())
        if key.startswith(("data.", "diffusion.", "masks.", "upscale.", "log.validate_"))
        and any(values[key] != trained[0][key] for values in trained)
        and key != "log.validate_every"
    ]


def names(arms: Arms) -> list[str]:
    """All figures: those of evaluations, those with a better side first, and then losses."""
    runs = [run for group in arms.values() for run in group]
    found = dict.fromkeys(name for run in runs for name in run.figures)
    better = {name for run in runs for name in run.better}
    losses = [name for name in (VALIDATION, TRAINING) if name in found]
    return sorted((n for n in found if n not in losses), key=lambda n: n not in better) + losses


def by_seed(runs: Sequence[Run], name: str) -> dict[int | None, float]:
    """A figure of each run that has it."""
    return {run.seed: run.figures[name] for run in runs if name in run.figures}


def value_of(interval: Interval) -> str:
    """Mean and half of the interval, to two digits of the latter, as HTML."""
    if not interval.half:
        return number(interval.mean)
    digits = max(0, 1 - math.floor(math.log10(interval.half)))
    if digits > 8:
        return f"{interval.mean:.4g} ± {interval.half:.2g}"
    return f"{interval.mean:.{digits}f} <small>± {interval.half:.{digits}f}</small>"
