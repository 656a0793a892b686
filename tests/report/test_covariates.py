"""Curves over a property of each clip: their numbers by hand, their drawings, and their words."""

import dataclasses
import json
import math
import pathlib
import re
import xml.etree.ElementTree

import curve_figure
import made_up
import numpy as np
import pytest
from scipy import stats

from stunet.errors import UserError
from stunet.report import binning, drawing, report
from stunet.report.results import Run
from stunet.sweep.curves import Curves, Expected

SHARE = Curves("Over speed", ("coherent",), ("speed",), (0.0, 1.0, 2.0), "speed")


def run(seed=0, given="", real=None, **clips):
    """A run with these values of each metric for its clips."""
    return Run(
        name=f"seed={seed}",
        arm="arm",
        seed=seed,
        directory=pathlib.Path(),
        settings={},
        step=1,
        total_steps=1,
        lines=(),
        metrics={},
        better={},
        step_flops=None,
        training_flops=1,
        sampling_flops=None,
        given=given,
        clips=clips,
        real_clips=real or {},
    )


def measured(arms, curves=SHARE):
    """The figure of a single group."""
    return binning.measure(curves, {"": arms})[""]


def test_a_point_is_the_mean_over_seeds_of_the_mean_over_clips_of_a_bin():
    runs = [
        run(0, speed=[0.1, 0.9, 1.0, 2.0], coherent=[1, 0, 1, 1]),
        run(1, speed=[0.5, 1.5, 1.5, 9.0], coherent=[1, 0, 1, 1]),
        run(2, speed=[0.5, 0.5, 0.5, None], coherent=[0, 0, 1, 1]),
    ]
    figure = measured({"A": runs})
    first, second = figure.lines["coherent"].means["A"]
    seeds = [0.5, 1.0, 1 / 3]
    assert first.mean == pytest.approx(np.mean(seeds))
    low, high = stats.t.interval(0.95, 2, np.mean(seeds), stats.sem(seeds))
    assert (first.low, first.high) == pytest.approx((low, high))
    # The third seed has no clip in the second bin, which holds both of its edges.
    assert (second.mean, second.n) == (0.75, 2)
    counts = figure.counts["A"]
    assert (counts.clips, counts.seeds, counts.runs) == ([6, 4], [3, 2], 3)
    # One clip is too fast, and one has no speed.
    assert counts.outside == 2


def test_clips_without_a_value_do_not_count_and_empty_bins_have_no_mean():
    figure = measured({"A": [run(speed=[0.5, 0.5, 5.0], coherent=[None, 1.0, 0.0])]})
    first, second = figure.lines["coherent"].means["A"]
    assert (first.mean, first.half, first.n) == (1, None, 1)
    assert second is None


def test_each_arm_takes_the_first_property_that_it_has_and_its_unit_is_scaled():
    curves = dataclasses.replace(SHARE, over=("true_speed", "speed"), scale=0.5)
    arms = {
        "told": [run(true_speed=[1.0], speed=[3.0], coherent=[1])],
        "untold": [run(speed=[3.0], coherent=[1])],
        "not measured": [run(coherent=[1])],
    }
    figure = measured(arms, curves)
    assert {arm: (c.over, c.clips) for arm, c in figure.counts.items()} == {
        "told": ("true_speed", [1, 0]),
        "untold": ("speed", [0, 1]),
    }
    assert binning.measure(curves, {"": {"not measured": arms["not measured"]}}) == {}


def test_the_lead_in_a_bin_is_a_paired_t_test_in_the_direction_that_is_better():
    rng = np.random.default_rng(0)
    drift = {arm: rng.uniform(0.1, 0.2, (4, 2)) for arm in "AB"}
    arms = {
        arm: [
            run(seed, speed=[0.5, 0.6], phase_drift=values.tolist())
            for seed, values in enumerate(of_arm)
        ]
        for arm, of_arm in drift.items()
    }
    line = measured(arms, dataclasses.replace(SHARE, metrics=("phase_drift",))).lines["phase_drift"]
    ((first, second),) = line.differences.values()
    assert second is None
    means = [drift[arm].mean(1) for arm in "AB"]
    # Low drift is better, so that A leads by B - A.
    assert first.lead.mean == pytest.approx(np.mean(means[1] - means[0]))
    span = np.ptp(list(drift.values()))
    hidden = (span / 2) ** 2 / 12 * 2
    t = first.lead.mean / math.sqrt((np.var(means[1] - means[0], ddof=1) + hidden) / 4)
    assert line.comparisons == 1
    assert first.corrected == pytest.approx(2 * stats.t.sf(abs(t), 3))


def test_all_bins_pairs_and_groups_count_as_comparisons():
    def arm(*means, given=""):
        clips = dict(speed=np.tile([0.5, 1.5], 8).tolist())
        noise = np.random.default_rng(0).uniform(0, 0.01, (3, 16))
        return [
            run(seed, given, **clips, phase_drift=(np.tile(means, 8) + noise[seed]).tolist())
            for seed in range(3)
        ]

    arms = {
        "A": arm(0.1, 0.1),
        "B": arm(0.1, 0.3),
        "C": arm(0.1, 0.1, given="keyframes"),
        "D": arm(0.1, 0.4, given="keyframes"),
    }
    curves = dataclasses.replace(SHARE, metrics=("phase_drift", "speed"))
    found = binning.measure(curves, {"slow": arms, "fast": arms})
    for figure in found.values():
        line = figure.lines["phase_drift"]
        assert list(line.differences) == [("A", "B"), ("C", "D")]
        # Two bins of two pairs in two groups.
        assert line.comparisons == 8
        for first, second in line.differences.values():
            assert not first.is_clear
            assert second.is_clear
            assert second.corrected >= second.lead.p_value
        # The speed is neither better nor worse.
        assert figure.lines["speed"].differences == {}
    chosen = dataclasses.replace(curves, pairs=(("D", "A"), ("A", "E")))
    assert list(measured(arms, chosen).lines["phase_drift"].differences) == [("D", "A")]


@pytest.mark.parametrize("clips", [2, 10])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_without_an_effect_at_most_5_percent_of_curves_call_a_bin_clear(clips, seeds):
    rng = np.random.default_rng(clips * seeds)
    curves = dataclasses.replace(SHARE, bins=(0.0, 1.0, 2.0, 3.0, 4.0))
    speed = np.repeat([0.5, 1.5, 2.5, 3.5], clips).tolist()
    count, wrong = 200, 0
    for _ in range(count):
        arms = {
            arm: [
                run(seed, speed=speed, coherent=rng.binomial(1, 0.7, 4 * clips).tolist())
                for seed in range(seeds)
            ]
            for arm in "ABC"
        }
        line = measured(arms, curves).lines["coherent"]
        assert line.comparisons == 12
        wrong += any(found.is_clear for pair in line.differences.values() for found in pair)
    assert wrong / count <= 0.05 + 2 * (0.05 * 0.95 / count) ** 0.5


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(UserError, match="coherent for 1 clips and speed for 2; evaluate"):
        measured({"A": [run(speed=[0.5, 0.5], coherent=[1.0])]})


@pytest.fixture(scope="module")
def made_up_sweep(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweep") / "made_up"
    made_up.sweep(directory, seeds=4)
    return directory


def page_of(directory) -> tuple[str, str]:
    """The source of a report, and its text."""
    report.write_report(directory, directory / "report.html")
    source = (directory / "report.html").read_text()
    return source, re.sub(r"<[^>]*>", "", source[source.index("<body>") :])


def test_the_report_shows_curves_and_what_was_predicted_before_them(made_up_sweep):
    source, text = page_of(made_up_sweep)
    order = [*made_up.PREDICTIONS, "Velocity stays steady in", made_up.CURVES.title, "Training"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    # The made-up runs began in 1970.
    assert text.count("noted after the first training had begun") == 2
    assert source.count(">limit of aliasing<") == 3
    # Five lines, and real clips.
    chart = source[source.index("<svg", source.index("Steady motion over speed")) :]
    chart = chart[: chart.index("</svg>")]
    assert chart.count("<polygon") == 5
    assert chart.count('class="mean real"') == 1
    assert chart.count('class="expected arm3"') == 1
    assert text.count("Dotted lines show what was expected") == 1
    row = re.search(r"windowed cascade on true keyframes, expected([\d%]*)", text)[1]
    assert row == "100%100%100%97%53%25%25%"
    one, other = "the single pass, the windowed cascade and ", "the windowed cascade on true keyfra"
    assert f"Clips of {one}the global cascade are sorted by their median step length. " in text
    assert re.search(rf"Clips of {other}mes and .*? are sorted by their true speed\.", text)


def test_the_report_says_where_arms_differ(made_up_sweep):
    _, text = page_of(made_up_sweep)
    # Three pairs of arms without and one with true keyframes, in 7 bins.
    found = re.search(r"Steady velocity \(28 comparisons\): (.*?)Phase drift \(28", text)[1]
    assert re.search(
        r"the global cascade is better than the windowed cascade from [\d.]+ to 2\.83", found
    )
    assert "the single pass is better than the windowed cascade" in found
    assert "Nowhere clear: the single pass and the global cascade" in found


def test_the_figure_is_an_svg_that_stands_alone(made_up_sweep, tmp_path):
    with pytest.raises(UserError, match="asks for 1 curves; there is no --curves 1"):
        curve_figure.draw(made_up_sweep, tmp_path / "curve.svg", 1)
    curve_figure.draw(made_up_sweep, tmp_path / "curve.svg")
    drawn = xml.etree.ElementTree.parse(tmp_path / "curve.svg")
    words = [text.text or "" for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {made_up.CURVES.title, "real clips", "expected", *made_up.ARMS} <= set(words)
    assert {element.tag.rpartition("}")[2] for element in drawn.iter()} == {
        *("svg", "style", "rect", "g", "text", "tspan", "line", "polyline", "polygon", "circle")
    }


def test_what_is_expected_holds_for_its_metric_and_group():
    of_all, of_slow = Expected("A", "coherent", (1.0, 0.5)), Expected("B", "coherent", (0.2, 0.1))
    of_slow = dataclasses.replace(of_slow, group="slow")
    curves = dataclasses.replace(SHARE, expected=(of_all, of_slow))
    arms = {"A": [run(speed=[0.5], coherent=[1.0])]}
    figures = binning.measure(curves, {"slow": arms, "fast": arms})
    assert figures["fast"].expected("coherent") == {"A": (1.0, 0.5)}
    assert figures["slow"].expected("coherent") == {"A": (1.0, 0.5), "B": (0.2, 0.1)}
    assert figures["slow"].expected("speed") == {}


def test_a_gap_divides_a_line_and_its_band():
    interval = drawing.Interval(0.5, 0.1, 3)
    few = drawing.Interval(0.5, 2.0, 2)
    curve = drawing.Curve(0, [1, 2, 3, 4, 5, 6], [interval, interval, None, few, interval, None])
    axis = drawing.Axis("", 0.0, 7.0)
    drawn = drawing.chart(drawing.Panel([curve], axis, axis, "title"))
    assert drawn.count('class="mean') == 2
    assert drawn.count("<polygon") == 1
    # A single point with three seeds has a whisker, and that of two seeds a hollow dot alone.
    assert drawn.count('class="seed') == 1
    assert (drawn.count('class="dot'), drawn.count('class="one')) == (3, 1)


def test_curves_and_predictions_may_be_missing_and_curves_without_values_are_named(
    made_up_sweep, tmp_path
):
    manifest, kept = made_up_sweep / "sweep.json", tmp_path / "sweep.json"
    noted = json.loads(manifest.read_text())
    without = {key: noted[key] for key in noted if key not in ("curves", "predictions")}
    of_flow = without | {"curves": [noted["curves"][0] | {"over": ["flow", "speed"]}]}
    manifest.rename(kept)
    try:
        texts = []
        for content in (without, of_flow):
            manifest.write_text(json.dumps(content))
            texts.append(page_of(made_up_sweep)[1])
    finally:
        kept.rename(manifest)
    assert not any("predicted" in text for text in texts)
    assert made_up.CURVES.title not in texts[0]
    assert "No finished run has values of optical flow or median speed for its clips" in texts[1]
