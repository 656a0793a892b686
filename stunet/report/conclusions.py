"""Ranks the arms (variants) of a sweep by each metric, and describes the ranking in sentences."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from stunet.report import formatting
from stunet.report.formatting import TRAINING, VALIDATION
from stunet.report.markup import fill, join
from stunet.report.results import Arms, by_seed
from stunet.report.statistics import Interval, paired_difference, t_interval

# Keys with this beginning change what a loss measures, so that losses cannot be compared.
_OF_THE_LOSS = ("data.", "diffusion.", "masks.", "upscale.", "log.validate_")

# Gives the name of an arm as HTML.
Named = Callable[[str], Markup]


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
    """

    metric: str
    better: str
    means: Mapping[str, Interval]
    leads: Mapping[str, Interval | None]

    @property
    def best(self) -> str:
        return next(iter(self.means))

    @property
    def clearly_worse(self) -> list[str]:
        """Returns the arms that the best arm clearly beats.

        For these arms, the confidence interval of the best arm's lead excludes zero.
        """
        return [a for a, lead in self._clear() if lead.mean > 0]

    @property
    def clearly_better(self) -> list[str]:
        """Returns the arms that clearly beat the best arm on the seeds that the two arms share.

        This can happen if arms have different seeds: A may beat B, B may beat C, and C may beat A.
        """
        return [a for a, lead in self._clear() if lead.mean < 0]

    @property
    def unclear(self) -> list[str]:
        """Returns the arms over which the lead of the best arm may be chance.

        These arms share two seeds or more with the best arm, and the confidence interval of the
        best arm's lead over each contains zero.
        """
        return [
            arm
            for arm, lead in self.leads.items()
            if lead and lead.half is not None and not lead.excludes_zero()
        ]

    @property
    def unranked(self) -> list[str]:
        """Returns the arms that cannot be ranked: they share one seed or none with the best arm."""
        return [a for a, lead in self.leads.items() if lead is None or lead.half is None]

    def _clear(self) -> list[tuple[str, Interval]]:
        return [(a, lead) for a, lead in self.leads.items() if lead and lead.excludes_zero()]


def rank(arms: Arms) -> list[Ranking]:
    """Ranks the arms (variants) of a sweep by each metric for which lower or higher is better.

    A metric needs values from at least two arms.

    Metrics of evaluations come first, because losses only hint at the quality of samples. Losses
    are left out if arms differ in a setting that changes what a loss measures. The training loss is
    left out if there is a validation loss, which is measured on clips that the network was not
    trained on.
    """
    better = {k: v for runs in arms.values() for run in runs for k, v in run.better.items()}
    ranked = [name for name in metric_names(arms) if name in better]
    found = []
    for name in ranked:
        values = {arm: by_seed(runs, name) for arm, runs in arms.items()}
        values = {arm: v for arm, v in values.items() if v}
        if len(values) < 2:
            continue
        if name in (TRAINING, VALIDATION) and keys_of_the_loss(arms):
            continue
        if name == TRAINING and VALIDATION in ranked:
            continue
        found.append(_rank(name, better[name], values))
    return found


def _rank(name: str, better: str, values: Mapping[str, Mapping[int | None, float]]) -> Ranking:
    """Ranks arms by one metric: the best arm first, then the others by their distance from it.

    Two arms are compared on the seeds that both have. Their means over different seeds could put
    the worse arm first. The same shared seeds decide whether the difference is clear. Arms that
    share no seed are compared by their means over all seeds.
    """
    sign = 1 if better == "lower" else -1
    means = {arm: t_interval(list(of_seed.values())) for arm, of_seed in values.items()}

    def gap(arm: str, other: str) -> float:
        paired = paired_difference(values[arm], values[other])
        return sign * (paired.mean if paired else means[arm].mean - means[other].mean)

    best, *others = values
    for arm in others:
        if gap(arm, best) < 0:
            best = arm
    others = sorted((arm for arm in values if arm != best), key=lambda arm: gap(arm, best))

    def lead(arm: str) -> Interval | None:
        paired = paired_difference(values[arm], values[best])
        return paired and Interval(sign * paired.mean, paired.half, paired.n)

    return Ranking(
        name, better, {arm: means[arm] for arm in (best, *others)}, {a: lead(a) for a in others}
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
            lead = ranking.leads[arm]
            lead = Interval(sign * times * lead.mean, times * lead.half, lead.n)
            gap = formatting.interval(lead) + unit
            found.append(fill("{{ arm }} (by {{ gap }})", arm=_the(arm), gap=gap))
        return formatting.enumerate_words(found)

    best = _the(ranking.best)
    sentences = []
    if arms := ranking.clearly_worse:
        clear = "{{ best }} is clearly better than {{ arms }}."
        sentences.append(fill(clear, best=formatting.capitalised(best), arms=listed(arms)))
    if arms := ranking.clearly_better:
        worse = "On the seeds of both, it is clearly worse than {{ arms }}."
        sentences.append(fill(worse, arms=listed(arms, -1)))
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
