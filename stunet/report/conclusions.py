"""Ranks the arms (variants) of a sweep by each metric, and describes the ranking in sentences."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from stunet.report import formatting
from stunet.report.formatting import TRAINING, VALIDATION
from stunet.report.markup import fill, join
from stunet.report.results import Arms, by_seed, clips_by_seed
from stunet.report.statistics import (
    Interval,
    holm,
    paired_difference,
    rounding_variance,
    t_interval,
)

# Keys with this beginning change what a loss measures, so that losses cannot be compared.
_OF_THE_LOSS = ("data.", "diffusion.", "masks.", "upscale.", "log.validate_")

# Gives the name of an arm as HTML.
Named = Callable[[str], Markup]


# Differences whose p-value is below this are called clear: one experiment in twenty would show such
# a difference, or a larger one, if there were none.
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Holds the ranking of a sweep's arms (variants) by one metric, and the lead of the best arm.

    Attributes:
        metric: name of the metric.
        better: which values are better: "lower" or "higher".
        means: mean over seeds and its confidence interval for each arm, from the best to the worst.
        leads: difference between the best arm and each other arm, positive if the best arm is
            better. The difference is a mean over the seeds that the two arms share, with its
            confidence interval; None if the two arms share no seed.
        corrected: p-value of each lead that was tested, corrected for the number of comparisons by
            Holm's method. The best arm is chosen by its values, so that each pair of arms counts as
            a comparison.
        comparisons: number of pairs of arms that were tested by this metric, in all groups of the
            sweep.
    """

    metric: str
    better: str
    means: Mapping[str, Interval]
    leads: Mapping[str, Interval | None]
    corrected: Mapping[str, float]
    comparisons: int

    @property
    def best(self) -> str:
        return next(iter(self.means))

    @property
    def clear(self) -> list[str]:
        """Returns the arms whose distance from the best arm is clear after the correction."""
        return [arm for arm, p_value in self.corrected.items() if p_value < LEVEL]

    @property
    def clear_alone(self) -> list[str]:
        """Returns the arms whose distance from the best arm is clear by itself only.

        The confidence interval of the best arm's lead excludes zero. After the correction for the
        number of comparisons, the lead may be chance.
        """
        found = [arm for arm in self.corrected if self.leads[arm].excludes_zero()]
        return [arm for arm in found if arm not in self.clear]

    @property
    def unclear(self) -> list[str]:
        """Returns the arms over which the lead of the best arm may be chance.

        These arms share two seeds or more with the best arm, and the confidence interval of the
        best arm's lead over each contains zero.
        """
        return [arm for arm in self.corrected if not self.leads[arm].excludes_zero()]

    @property
    def unranked(self) -> list[str]:
        """Returns the arms that cannot be ranked: they share one seed or none with the best arm."""
        return [arm for arm in self.leads if arm not in self.corrected]


def rank(groups: Mapping[str, Arms]) -> dict[str, list[Ranking]]:
    """Ranks the arms (variants) of each group by each metric for which lower or higher is better.

    A metric needs values from at least two arms.

    Metrics of evaluations come first, because losses only hint at the quality of samples. Losses
    are left out if arms differ in a setting that changes what a loss measures. The training loss is
    left out if there is a validation loss, which is measured on clips that the network was not
    trained on.

    Comparisons by one metric are corrected for their number, over all groups.

    Returns:
        The rankings of each group, the most important metric first.
    """
    compared = {group: _compare_by_metric(arms) for group, arms in groups.items()}
    tests: dict[str, dict[tuple[str, str, str], float]] = {}
    for group, by_metric in compared.items():
        for name, comparison in by_metric.items():
            p_values = {(group, *pair): p for pair, p in comparison.p_values.items()}
            tests.setdefault(name, {}).update(p_values)
    corrected = {
        name: dict(zip(found, holm(list(found.values())), strict=True))
        for name, found in tests.items()
    }
    return {
        group: [
            _rank(name, comparison, group, corrected[name])
            for name, comparison in by_metric.items()
        ]
        for group, by_metric in compared.items()
    }


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """Holds what one metric says about the arms of one group.

    Attributes:
        better: which values are better: "lower" or "higher".
        means: mean over seeds and its confidence interval, for each arm.
        leads: for each pair of arms, in either order, the mean lead of the first over the second on
            the seeds that they share; None if they share none.
    """

    better: str
    means: Mapping[str, Interval]
    leads: Mapping[tuple[str, str], Interval | None]

    @property
    def p_values(self) -> dict[tuple[str, str], float]:
        """Returns the p-value of each pair of arms, in one order, that shares two seeds or more."""
        leads = {pair: self.leads[pair] for pair in itertools.combinations(self.means, 2)}
        return {pair: lead.p_value for pair, lead in leads.items() if lead and lead.n > 1}

    def gap(self, arm: str, other: str) -> float:
        """Returns by how much `arm` is better than `other`.

        Means over different seeds could put the worse arm first. So two arms are compared on the
        seeds that both have, or by their means over all seeds if there are none.
        """
        if lead := self.leads[arm, other]:
            return lead.mean
        sign = 1 if self.better == "higher" else -1
        return sign * (self.means[arm].mean - self.means[other].mean)


def _compare_by_metric(arms: Arms) -> dict[str, _Comparison]:
    """Compares the arms of a group by each metric that can rank them."""
    better = {k: v for runs in arms.values() for run in runs for k, v in run.better.items()}
    ranked = [name for name in metric_names(arms) if name in better]
    found = {}
    for name in ranked:
        with_values = {arm: runs for arm, runs in arms.items() if by_seed(runs, name)}
        if len(with_values) < 2:
            continue
        if name in (TRAINING, VALIDATION) and keys_of_the_loss(arms):
            continue
        if name == TRAINING and VALIDATION in ranked:
            continue
        found[name] = _compare(name, better[name], with_values)
    return found


def _compare(name: str, better: str, arms: Arms) -> _Comparison:
    """Compares each pair of arms by one metric."""
    values = {arm: by_seed(runs, name) for arm, runs in arms.items()}
    clips = {arm: clips_by_seed(runs, name) for arm, runs in arms.items()}
    leads = {}
    for arm, other in itertools.combinations(values, 2):
        shared = [seed for seed in values[arm] if seed in values[other]]
        of_both = [[clips[of][seed] for seed in shared] for of in (arm, other)]
        rounding = rounding_variance(*of_both)
        lead = paired_difference(values[arm], values[other], rounding=rounding)
        sign = 1 if better == "higher" else -1
        leads[arm, other] = lead and lead.scaled(sign)
        leads[other, arm] = lead and lead.scaled(-sign)
    means = {arm: t_interval(list(of_seed.values())) for arm, of_seed in values.items()}
    return _Comparison(better, means, leads)


def _rank(
    name: str,
    comparison: _Comparison,
    group: str,
    corrected: Mapping[tuple[str, str, str], float],
) -> Ranking:
    """Ranks arms by one metric: the best arm first, then the others by their distance from it."""
    best, *others = comparison.means
    for arm in others:
        if comparison.gap(arm, best) > 0:
            best = arm
    others = [arm for arm in comparison.means if arm != best]
    others.sort(key=lambda arm: comparison.gap(best, arm))
    p_values = {
        arm: corrected[group, *pair]
        for arm in others
        for pair in ((best, arm), (arm, best))
        if (group, *pair) in corrected
    }
    return Ranking(
        metric=name,
        better=comparison.better,
        means={arm: comparison.means[arm] for arm in (best, *others)},
        leads={arm: comparison.leads[best, arm] for arm in others},
        corrected=p_values,
        comparisons=len(corrected),
    )


def say(rankings: Sequence[Ranking], marked: Named = escape) -> list[Markup]:
    """Describes the first ranking and its certainty, then names the best arm of each other ranking.

    Args:
        rankings: rankings of the same arms by different metrics, the most important first.
        marked: maps the name of an arm to the HTML that stands for it in the first sentence.

    Returns:
        Sentences as HTML. The first begins with a small letter, to follow a colon.
    """
    if not rankings:
        return [Markup("no metric is shared by two variants.")]
    first, *others = rankings
    sentences = [_say_order(first, marked), *_say_certainty(first)]
    best: dict[str, list[str]] = {}
    for i, ranking in enumerate(others, 1):
        # A metric with the same values as an earlier one says nothing more.
        if ranking.means not in [earlier.means for earlier in rankings[:i]]:
            best.setdefault(ranking.best, []).append(formatting.metric(ranking.metric).title)
    if best:
        found = [
            fill("{{ arm }} ({{ titles }})", arm=_the(arm), titles=", ".join(titles))
            for arm, titles in best.items()
        ]
        arms = formatting.enumerate_words(found)
        sentences.append(fill("Best by other metrics: {{ arms }}.", arms=arms))
    return sentences


def _say_order(ranking: Ranking, marked: Named) -> Markup:
    """Says the mean of each arm, as in "velocity stays steady in 94% of the ... clips, ..."."""
    metric = formatting.metric(ranking.metric)
    shown = {arm: metric.show(mean.mean) for arm, mean in ranking.means.items()}
    if metric.claim:
        parts = [
            fill(
                "<b>{{ value }}</b> of {{ whose }}",
                value=value,
                whose=_whose(arm, marked, " clips" if arm == ranking.best else ""),
            )
            for arm, value in shown.items()
        ]
        return fill("{{ claim }} in {{ parts }}.", claim=metric.claim, parts=join(parts, ", "))
    first, *others = (
        fill("{{ arm }} (<b>{{ value }}</b>)", arm=_the(arm, marked), value=value)
        for arm, value in shown.items()
    )
    return fill(
        "{{ title }} is {{ side }} with {{ first }}, followed by {{ others }}.",
        title=metric.title,
        side="lowest" if ranking.better == "lower" else "highest",
        first=first,
        others=formatting.enumerate_words(others),
    )


def _say_certainty(ranking: Ranking) -> list[Markup]:
    """Says for which arms the lead of the best arm is clear, may be chance, or cannot be judged."""
    # A difference of two percentages is one of points.
    times, unit = (100, " points") if formatting.is_percent(ranking.metric) else (1, "")

    def listed(arms: Sequence[str], sign: int = 1) -> Markup:
        found = []
        for arm in arms:
            gap = formatting.interval(ranking.leads[arm].scaled(sign * times)) + unit
            found.append(fill("{{ arm }} (by {{ gap }})", arm=_the(arm), gap=gap))
        return formatting.enumerate_words(found)

    best, sentences = _the(ranking.best), []
    several = ranking.comparisons > 1
    correction = f"Holm's correction for {ranking.comparisons} comparisons"
    # On the seeds of both, an arm may beat the best one: A may beat B, B beat C, and C beat A.
    for sign, clear, alone in (
        (
            1,
            "{{ capital }} is clearly better than {{ arms }}{{ also }}.",
            "The lead of {{ best }} over {{ arms }} is clear by itself, but not after "
            "{{ correction }}.",
        ),
        (
            -1,
            "On the seeds of both, it is clearly worse than {{ arms }}{{ also }}.",
            "On the seeds of both, it is worse than {{ arms }}. This is clear by itself, but not "
            "after {{ correction }}.",
        ),
    ):
        for arms, sentence in ((ranking.clear, clear), (ranking.clear_alone, alone)):
            if found := [arm for arm in arms if sign * ranking.leads[arm].mean > 0]:
                words = dict(capital=formatting.capitalised(best), best=best)
                words |= dict(also=f", also after {correction}" if several else "")
                words |= dict(arms=listed(found, sign), correction=correction)
                sentences.append(fill(sentence, **words))
    if arms := ranking.unclear:
        chance = "The lead of {{ best }} over {{ arms }} may be chance."
        sentences.append(fill(chance, best=best, arms=listed(arms)))
    if arms := ranking.unranked:
        names = formatting.enumerate_words([_the(arm) for arm in arms])
        sentences.append(fill("One seed cannot rank {{ names }}.", names=names))
    return sentences


def _the(arm: str, marked: Named = escape) -> Markup:
    """Returns the name of an arm after "the", or alone if it is a setting such as "width = 8"."""
    return marked(arm) if "=" in arm else Markup("the ") + marked(arm)


def _whose(arm: str, marked: Named, what: str = "") -> Markup:
    """Returns a phrase such as "the global cascade's clips", where `what` is " clips"."""
    if "=" in arm:
        return fill("{{ what }} with {{ arm }}", what=what.strip() or "those", arm=marked(arm))
    return fill("the {{ arm }}'s{{ what }}", arm=marked(arm), what=what)


def keys_of_the_loss(arms: Arms) -> list[str]:
    """Returns the config keys that differ between arms and change what a loss measures."""
    trained = [runs[0].settings for runs in arms.values() if runs[0].settings]
    return [
        key
        for key in (trained[0] if trained else ())
        if key.startswith(_OF_THE_LOSS)
        and any(settings[key] != trained[0][key] for settings in trained)
        and key != "log.validate_every"
    ]


def metric_names(arms: Arms) -> list[str]:
    """Returns the names of all metrics: those of evaluations first, then losses.

    Among the metrics of evaluations, metrics that can rank arms come first.
    """
    runs = [run for group in arms.values() for run in group]
    found = dict.fromkeys(name for run in runs for name in run.metrics)
    better = {name for run in runs for name in run.better}
    losses = [name for name in (VALIDATION, TRAINING) if name in found]
    return sorted((n for n in found if n not in losses), key=lambda n: n not in better) + losses
