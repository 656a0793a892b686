"""Defines the metrics of `stunet evaluate`: names, units, directions, and tables of their means."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.stage import Stage
from stunet.evaluate import coherence, pixels
from stunet.evaluate.tracking import Clips

# Values of each metric, by its name: one for each clip.
MetricValues = dict[str, Float[np.ndarray, " n"]]


# Formats of a number, such as "{:.0%}". Reports read them from files, and others could do harm:
# "{:9999999999}" fills the memory.
_FORMAT = re.compile(r"\{:[+ ]?,?(\.\d{1,2})?[efg%]?\}")


@dataclasses.dataclass(frozen=True)
class Metric:
    """Says how tables and reports show one metric.

    Attributes:
        title: short name in plain words.
        description: what the metric measures, as a clause without a full stop.
        unit: unit of the shown number; "" for none.
        format: format string for the mean over clips.
        better: "higher" or "lower" for a metric by which reports rank; None for all others. A clip
            that stands still, for example, has the lowest velocity change but is not the best.
        claim: if the metric is a share of the clips, a clause that is true for the clips in this
            share, such as "velocity stays steady"; "" for all other metrics.

    Raises:
        ValueError: `format` is no format of a number, such as "{:.2f}".
    """

    title: str
    description: str
    unit: str = ""
    format: str = "{:.2f}"
    better: Literal["higher", "lower"] | None = None
    claim: str = ""

    def __post_init__(self):
        if not _FORMAT.fullmatch(self.format):
            right = "give one such as '{:.2f}' or '{:.0%}'"
            raise ValueError(f"the format {self.format!r} is no format of a number; {right}")

    @property
    def label(self) -> str:
        """Returns the title with its unit, as in "median speed (px/frame)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def direction(self) -> str:
        """Returns "higher is better" or "lower is better", or "" if `better` is None."""
        return f"{self.better} is better" if self.better else ""

    def show(self, value: float) -> str:
        """Formats a value without its unit; NaN, which stands for no value, becomes "-"."""
        return "-" if np.isnan(value) else self.format.format(value + 0.0)  # Not "-0.00".


# What the caption of a moving digit says -> metric of whether the clip shows it.
_OF_CAPTIONS = {
    f"right_{part}": Metric(
        f"{title} as asked",
        f"{clause}, as read from the clip without its caption",
        "share of clips",
        "{:.0%}",
        "higher",
        clause,
    )
    for part, title, clause in (
        ("caption", "everything", "all that the caption says is shown"),
        ("digit", "digit", "the digit is the caption's"),
        ("direction", "direction", "the direction is the caption's"),
        ("speed", "speed", "the speed is the caption's"),
        ("colour", "digit's colour", "the digit's colour is the caption's"),
        ("ground", "ground's colour", "the ground's colour is the caption's"),
        ("pattern", "ground's pattern", "the ground's pattern is the caption's"),
    )
}

# Tables and reports list metrics in this order. The amount of motion comes before coherence, since
# a clip that stands still is as coherent as can be.
METRICS = {
    **_OF_CAPTIONS,
    "speed": Metric(
        "median speed",
        "the objects' median speed over the clip, or their mean speed if the speed changes",
        "px/frame",
    ),
    "step_length": Metric(
        "median step length",
        "the median length of the objects' steps, whichever way they go",
        "px/frame",
    ),
    "true_speed": Metric(
        "true speed",
        "the speed that the caption or the keyframes describe",
        "px/frame",
    ),
    "flow": Metric(
        "optical flow",
        "the mean length of the optical flow, which is the amount of motion",
        "px/frame",
        "{:.3f}",
    ),
    "coherent": Metric(
        "steady velocity",
        f"the clip's steps all lie within {coherence.TOLERANCE:g} px of its median step, or of the "
        "motion of the data that fits best; for an arm, the steps of its middle count",
        "share of clips",
        "{:.0%}",
        "higher",
        "velocity stays steady",
    ),
    "faithful": Metric(
        "steady and correct velocity",
        "the velocity is steady, its speed is one of the data's, and it is the one that the caption"
        " or the keyframes describe",
        "share of clips",
        "{:.0%}",
        "higher",
        "velocity is steady and as asked",
    ),
    "deviation": Metric(
        "largest deviation of a step",
        "the largest difference of a step from the clip's median step, or from the motion of the "
        "data that fits best",
        "px/frame",
        better="lower",
    ),
    "speed_error": Metric(
        "speed outside the data's range",
        "how far the speed is below the lowest or above the highest speed of the data",
        "px/frame",
    ),
    "velocity_error": Metric(
        "velocity error",
        "the difference from the velocity that the caption or the keyframes describe",
        "px/frame",
        better="lower",
    ),
    "period_drift": Metric(
        "period drift",
        "the change of the frequency from the first half of the clip to the second",
        "share of the frequency",
        "{:.1%}",
        "lower",
    ),
    "phase_drift": Metric(
        "phase drift",
        "the largest distance from the steady motion that fits best",
        "share of the period",
        "{:.1%}",
        "lower",
    ),
    "jump": Metric(
        "velocity change",
        "the mean change of velocity from step to step, apart from window borders",
        "px/frame",
    ),
    "border_jump": Metric(
        "velocity change at window borders",
        "the mean change of velocity from step to step where two windows meet",
        "px/frame",
    ),
    "identity_drift": Metric(
        "identity drift",
        "one minus the mean correlation of each object with itself in the first frame, 0 to 2",
        format="{:.3f}",
        better="lower",
    ),
    "identity_swaps": Metric(
        "identity swaps",
        "how often two objects exchange their looks or each other's paths",
        "per clip",
        better="lower",
    ),
    "frame_error": Metric(
        "squared difference of adjacent frames",
        "the mean squared difference of brightness, 0 to 1, apart from window borders",
        format="{:.4f}",
    ),
    "border_frame_error": Metric(
        "squared difference of adjacent frames at window borders",
        "the mean squared difference of brightness, 0 to 1, where two windows meet",
        format="{:.4f}",
    ),
    "flow_change": Metric(
        "flow change",
        "the mean change of the optical flow from step to step, apart from window borders",
        "px/frame",
        "{:.3f}",
    ),
    "border_flow_change": Metric(
        "flow change at window borders",
        "the mean change of the optical flow from step to step where two windows meet",
        "px/frame",
        "{:.3f}",
    ),
    "flow_distance": Metric(
        "distance of flow histograms",
        "the earth mover's distance from training clips, between histograms of flow lengths",
        "px/frame",
        "{:.3f}",
    ),
    "flow_change_distance": Metric(
        "distance of flow-change histograms",
        "the earth mover's distance from training clips, between histograms of flow changes",
        "px/frame",
        "{:.3f}",
    ),
    "fvd": Metric(
        "FVD",
        "the Fréchet video distance from training clips",
        format="{:.1f}",
        better="lower",
    ),
    "frechet_i3d": Metric(
        "Fréchet distance of I3D logits",
        "the Fréchet distance from training clips, of clips too few or too small for an FVD",
        format="{:.1f}",
        better="lower",
    ),
    "detail": Metric(
        "detail",
        "the mean difference of brightness, 0 to 1, of neighbouring pixels; blur lowers it",
        format="{:.3f}",
    ),
}


def measure(
    clips: Clips,
    stage: Stage | None = None,
    *,
    shapes: Sequence[Sequence[str]] | None = None,
    truth: Float[np.ndarray, "n o t 2"] | None = None,
    factors: Float[np.ndarray, "n o 2"] | None = None,
    borders: Sequence[int] = (),
    reference: Clips | None = None,
) -> MetricValues:
    """Measures all metrics that can be computed for these clips.

    Metrics of the whole set repeat for each clip.

    Args:
        clips: clips in -1..1.
        stage: canvas and motion of objects that can be tracked; None for clips of any other kind.
        shapes: as in `coherence.measure`.
        truth: as in `coherence.measure`.
        factors: as in `coherence.measure`.
        borders: first frame of each window except the first window, as in `coherence.measure`.
        reference: real clips, for the distances of flow histograms; None leaves these distances
            out.
    """
    found = {}
    if stage is not None:
        known = dict(shapes=shapes, truth=truth, factors=factors, borders=borders)
        found |= coherence.measure(clips, stage, **known)
    found |= pixels.measure(clips, borders)
    if reference is not None and pixels.has_flow(clips.shape[1:4]):
        flow, change = pixels.flow_distance(pixels.farneback(clips), pixels.farneback(reference))
        found["flow_distance"] = np.full(len(clips), flow)
        found["flow_change_distance"] = np.full(len(clips), change)
    return {name: found[name] for name in METRICS if name in found}


def mean(values: Float[np.ndarray, " n"]) -> float:
    """Returns the mean over all values that are not NaN, or NaN if all values are NaN."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")


def table(
    columns: Mapping[str, MetricValues],
    *,
    known: Mapping[str, Metric] = METRICS,
    titles: Mapping[str, str] | None = None,
    markdown: bool = False,
) -> str:
    """Lays out means over clips in a table, with metrics as rows and sets of clips as columns.

    Args:
        columns: values of each metric, by the name of the set of clips.
        known: rows of the table, by the name of the metric.
        titles: labels that replace those of `known`, by the name of the metric.
        markdown: lay the table out in Markdown instead of aligned columns.
    """
    rows = [["metric", *columns, ""]]
    for name, metric in known.items():
        if any(name in values for values in columns.values()):
            means = [mean(v[name]) if name in v else float("nan") for v in columns.values()]
            label = (titles or {}).get(name, metric.label)
            rows.append([label, *map(metric.show, means), metric.direction])
    if markdown:
        rows.insert(1, ["---", *["---:"] * len(columns), "---"])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *cells, direction in rows:
        numbers = [c.rjust(width) for c, width in zip(cells, widths[1:-1], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *numbers, direction]).rstrip())
    return "\n".join(lines)
