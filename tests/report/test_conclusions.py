"""What the report says in words, of arms whose seeds are the same and of others."""

import html
import pathlib
import re

import false_leads
import pytest

from stunet.report.conclusions import rank, say
from stunet.report.results import Run


def runs(arms, metric="deviation", better="lower"):
    """Runs of one metric, from `{arm: {seed: value}}`."""
    common = dict(directory=pathlib.Path(), settings={}, step=1, total_steps=1, lines=())
    common |= dict(step_flops=None, training_flops=1, sampling_flops=None)
    return {
        arm: [
            Run(
                name=f"{arm},seed={seed}",
                arm=arm,
                seed=seed,
                metrics={metric: value},
                better={metric: better},
                **common,
            )
            for seed, value in values.items()
        ]
        for arm, values in arms.items()
    }


def said(arms, metric="deviation", better="lower"):
    """The sentences, as text."""
    sentences = say(rank({"": runs(arms, metric, better)})[""])
    return html.unescape(re.sub(r"<[^>]*>", "", " ".join(sentences)))


# B is lower than A by 1.97 on either seed of both, and seeds 2 to 4, which it lacks, are easy.
EASY = dict(enumerate((9.0, 9.5, 1.0, 1.2, 1.1)))
UNFINISHED = {0: 7.03, 1: 7.53}


def test_the_best_arm_is_the_one_that_wins_on_the_seeds_of_both():
    for arms in ({"A": EASY, "B": UNFINISHED}, {"B": UNFINISHED, "A": EASY}):
        found = said(arms)
        assert "is lowest with the B (7.28), followed by the A (4.36)." in found
        assert re.search(r"The B is clearly better than the A \(by 1\.97\d*.*\)\.", found)
    assert "is highest with the A" in said({"A": EASY, "B": UNFINISHED}, better="higher")


def test_shares_of_clips_are_said_with_the_names_of_arms():
    arms = {
        "single pass": {0: 0.8, 1: 0.84, 2: 0.85},
        "windowed cascade": {0: 0.17, 1: 0.18, 2: 0.19},
        "global cascade": {0: 0.93, 1: 0.94, 2: 0.95},
    }
    assert said(arms, "coherent", "higher").startswith(
        "velocity stays steady in 94% of the global cascade's clips, 83% of the single pass's, "
        "18% of the windowed cascade's."
    )
    # The difference of two shares is in points.
    assert "the windowed cascade (by 76 points)" in said(arms, "coherent", "higher")
    settings = {"width = 8": {0: 0.5, 1: 0.6}, "width = 16": {0: 0.9, 1: 0.9}}
    assert said(settings, "coherent", "higher").startswith(
        "velocity stays steady in 90% of clips with width = 16, 55% of those with width = 8."
    )


def test_what_may_be_chance_is_called_so():
    found = said({"A": {0: 1.0, 1: 2.0, 2: 3.0}, "B": {0: 1.2, 1: 1.9, 2: 3.3}})
    assert re.search(r"The lead of the A over the B \(by 0\.13 ± 0\.5\d\) may be chance\.", found)
    assert "clearly" not in found


def test_an_arm_of_one_seed_does_not_decide_between_others():
    # B is lower than A but for seed 0, the only one of all three, and lacks an easy seed.
    b = {seed: EASY[seed] - 0.5 for seed in (1, 2, 3)} | {0: 9.1}
    found = said({"A": EASY, "B": b, "C": {0: 9.3}})
    assert "is lowest with the B" in found
    assert "One seed cannot rank the C." in found


def test_arms_without_a_seed_of_both_are_ranked_by_their_means():
    found = said({"A": {0: 2.0, 1: 2.1}, "B": {2: 1.0, 3: 1.1}})
    assert "is lowest with the B" in found
    assert "cannot rank the A." in found


def test_what_is_clear_is_never_said_the_wrong_way_round():
    # A beats B, C beats A and B beats C, by 1 each, on the seeds of both.
    arms = {
        "A": {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0},
        "B": {0: 2.0, 1: 2.0, 4: 1.0, 5: 1.0},
        "C": {2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0},
    }
    found = said(arms)
    assert "is lowest with the C" in found
    correction = "also after Holm's correction for 3 comparisons"
    assert f"The C is clearly better than the A (by 1), {correction}." in found
    assert f"On the seeds of both, it is clearly worse than the B (by 1), {correction}." in found


def test_names_are_text():
    (sentence, *_) = say(rank({"": runs({"a <b>": {0: 1.0}, "c & d": {0: 2.0}})})[""])
    assert "a &lt;b&gt;" in sentence
    assert "c &amp; d" in sentence


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_other_metrics_name_their_best_arm_once(better):
    arms = runs({"A": {0: 1.0}, "B": {0: 2.0}}, better=better)
    for group in arms.values():
        for run in group:
            # The second metric has the values of the first, the third others.
            run.metrics.update(same=run.metrics["deviation"], drift=-run.metrics["deviation"])
            run.better.update(same=better, drift=better)
    found = " ".join(say(rank({"": arms})[""]))
    worst = "B" if better == "lower" else "A"
    assert f"Best by other metrics: the {worst} (drift)." in found
    assert "same" not in found


def test_what_is_clear_by_itself_may_be_chance_among_many():
    # B is behind A by 0.1 ± 0.07, and C by far.
    values = {0: 1.0, 1: 2.0, 2: 3.0}
    close = {seed: value + 0.1 + 0.03 * (seed - 1) for seed, value in values.items()}
    unsteady = {0: 3.0, 1: 1.2, 2: 2.9}
    arms = {"A": values, "B": close}
    assert re.search(r"A is clearly better than the B \(by 0\.1\d* .*\)\.$", said(arms))
    found = said(arms | {"C": unsteady})
    assert re.search(
        r"The lead of the A over the B \(by 0\.1\d* .*\) is clear by itself, but not "
        r"after Holm's correction for 3 comparisons\. The lead of the A over the C",
        found,
    )


def test_comparisons_are_counted_over_all_groups():
    arms = runs({"A": {0: 1.0, 1: 2.0}, "B": {0: 5.0, 1: 6.5}, "C": {7: 9.0}})
    (ranking,) = rank({"slow": arms})["slow"]
    # C shares no seed with the others, so that it is not tested.
    assert (ranking.comparisons, list(ranking.corrected)) == (1, ["B"])
    both = rank({"slow": arms, "fast": arms})
    assert [ranking.comparisons for (ranking,) in both.values()] == [2, 2]
    alone, of_two = ranking.corrected["B"], both["fast"][0].corrected["B"]
    assert of_two == pytest.approx(2 * alone)


@pytest.mark.parametrize("clips", false_leads.CLIPS)
@pytest.mark.parametrize("seeds", [3, 5])
def test_of_reports_without_any_effect_at_most_5_percent_call_a_lead_clear(clips, seeds):
    shares = false_leads.simulate(clips, seeds, 300)
    # Two standard deviations of a share of 300.
    assert shares.rounded <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
    # The correction is needed: without it, reports call chance a lead.
    assert shares.uncorrected > 0.1
