"""Every figure in order, what it means in a few words, and tables of them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.motions import Stage
from stunet.evaluate import coherence, pixels
from stunet.evaluate.tracking import Clips


@dataclasses.dataclass(frozen=True)
class Figure:
    """How a metric is named and written.

    Attributes:
        style: format string of the mean over clips, such as "{:.0%}" for a share.
        words: short name with its unit, for the tables of `stunet evaluate`.
        title: name at the head of a row of the report.
        unit: unit, and what is measured, in a few words.
        better: "higher" or "lower" for metrics that tell whether motion holds together or clips
            look real; "" for the others.
        claim: for a share of clips, what is true of these clips: "velocity stays steady" reads
            "velocity stays steady in 94% of the clips".
    """

    style: str
    words: str
    title: str
    unit: str
    better: str = ""
    claim: str = ""


FIGURES = {
    "speed": Figure("{:.2f}", "speed, px a frame", "Speed", "pixels per frame"),
    "flow": Figure("{:.3f}", "optical flow, px a frame", "Optical flow", "pixels per frame"),
    "coherent": Figure(
        "{:.0%}",
        f"coherent: steps within {coherence.TOLERANCE:g} px of the median",
        "Clips with steady velocity",
        f"share of clips with every step within {coherence.TOLERANCE:g} pixel of the median step",
        "higher",
        "velocity stays steady",
    ),
    "faithful": Figure(
        "{:.0%}",
        "coherent, and as fast (and that way) as told",
        "Clips that move as asked",
        "share of clips with steady velocity, at the speed and in the direction asked for",
        "higher",
        "motion is steady and as asked",
    ),
    "deviation": Figure(
        "{:.2f}",
        "largest deviation of a step, px",
        "Largest deviation from steady motion",
        "pixels per frame, between a step and the median step",
        "lower",
    ),
    "speed_error": Figure(
        "{:.2f}",
        "speed outside the data's, px a frame",
        "Speed outside the data's range",
        "pixels per frame",
    ),
    "velocity_error": Figure(
        "{:.2f}",
        "velocity against the caption's, px a frame",
        "Velocity error",
        "pixels per frame, against the caption's velocity",
        "lower",
    ),
    "period_drift": Figure(
        "{:.1%}",
        "period: change from half to half",
        "Drift of the period",
        "change from the clip's first half to its second",
        "lower",
    ),
    "phase_drift": Figure(
        "{:.1%}",
        "phase: drift, of a period",
        "Drift of the phase",
        "share of a period, from steady motion",
        "lower",
    ),
    "jump": Figure(
        "{:.2f}", "change of velocity, px a frame", "Change of velocity", "pixels per frame"
    ),
    "border_jump": Figure(
        "{:.2f}",
        "change of velocity at borders",
        "Change of velocity where windows meet",
        "pixels per frame",
    ),
    "identity_drift": Figure(
        "{:.3f}",
        "identity drift, 1 - correlation",
        "Drift of the object's look",
        "1 - correlation with the first frame",
        "lower",
    ),
    "frame_error": Figure(
        "{:.4f}",
        "adjacent-frame error, squared",
        "Difference of adjacent frames",
        "mean square, of values in -1..1",
    ),
    "border_frame_error": Figure(
        "{:.4f}",
        "adjacent-frame error at borders",
        "Difference of adjacent frames where windows meet",
        "mean square, of values in -1..1",
    ),
    "flow_change": Figure(
        "{:.3f}", "change of flow, px a frame", "Change of optical flow", "pixels per frame"
    ),
    "border_flow_change": Figure(
        "{:.3f}",
        "change of flow at borders",
        "Change of optical flow where windows meet",
        "pixels per frame",
    ),
    "flow_distance": Figure(
        "{:.3f}",
        "distance of flow histograms, px",
        "Distance of optical-flow histograms",
        "pixels per frame, from real clips",
    ),
    "flow_change_distance": Figure(
        "{:.3f}",
        "distance of flow-change histograms, px",
        "Distance of flow-change histograms",
        "pixels per frame, from real clips",
    ),
    "fvd": Figure(
        "{:.1f}",
        "FVD",
        "Fréchet video distance (FVD)",
        "of I3D logits, from real clips",
        "lower",
    ),
    "frechet_i3d": Figure(
        "{:.1f}",
        "Fréchet distance of I3D logits, of clips too few for an FVD",
        "Fréchet distance of I3D logits",
        "from real clips; the clips are too few for an FVD",
        "lower",
    ),
    "detail": Figure(
        "{:.3f}",
        "detail: difference of neighbouring pixels",
        "Detail",
        "difference of neighbouring pixels",
    ),
}

BETTER = {name: figure.better for name, figure in FIGURES.items() if figure.better}

Figures = dict[str, Float[np.ndarray, " n"]]


def measure(
    clips: Clips,
    stage: Stage | None = None,
    *,
    looks: Sequence[Sequence[str]] | None = None,
    truth: Float[np.ndarray, "n o t 2"] | None = None,
    borders: Sequence[int] = (),
    reference: Clips | None = None,
) -> Figures:
    """Every figure that these clips have, by clip; those of a whole set are repeated over it.

    Args:
      clips: in -1..1.
      stage: of objects that can be tracked; None for clips of any other kind.
      looks: see `coherence.motion`.
      truth: see `coherence.motion`.
      borders: first frames of windows.
      reference: real clips, for the distances of flow histograms.
    """
    found = {}
    if stage is not None:
        found |= coherence.motion(clips, stage, looks=looks, truth=truth, borders=borders)
    found |= pixels.figures(clips, borders)
    if reference is not None and pixels.has_flow(clips.shape[1:4]):
        flow, change = pixels.flow_distance(pixels.farneback(clips), pixels.farneback(reference))
        found["flow_distance"] = np.full(len(clips), flow)
        found["flow_change_distance"] = np.full(len(clips), change)
    return {name: found[name] for name in FIGURES if name in found}


def mean(values: Float[np.ndarray, " n"]) -> float:
    """Over the clips for which there is a value; NaN if there are none."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else float("nan")


def table(
    columns: Mapping[str, Figures],
    *,
    words: Mapping[str, str] | None = None,
    markdown: bool = False,
) -> str:
    """Means over clips, a row for each figure and a column for each set of clips.

    Args:
      columns: figures by the name of their clips.
      words: for a figure, where they are not to be its own.
      markdown: whether that is wanted.
    """
    present = [name for name in FIGURES if any(name in column for column in columns.values())]
    rows = [["", *columns]]
    for name in present:
        figure = FIGURES[name]
        cells = [_cell(column.get(name), figure.style) for column in columns.values()]
        rows.append([(words or {}).get(name, figure.words), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if markdown:
        rows.insert(1, ["---", *["---:"] * len(columns)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(values: Float[np.ndarray, " n"] | None, style: str) -> str:
    if values is None or np.isnan(mean(values)):
        return "-"
    return style.format(mean(values) + 0.0)  # Not -0.
