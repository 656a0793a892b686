"""Every figure in order, what it means in a few words, and tables of them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from stunet.data.synthetic.motions import Stage
from stunet.evaluate import coherence, pixels
from stunet.evaluate.tracking import Clips

# By name: how the mean over clips is written, and what it is.
FIGURES = {
    "speed": ("{:.2f}", "speed, px a frame"),
    "flow": ("{:.3f}", "optical flow, px a frame"),
    "coherent": ("{:.0%}", f"coherent: steps within {coherence.TOLERANCE:g} px of the median"),
    "faithful": ("{:.0%}", "coherent, and as fast (and that way) as told"),
    "deviation": ("{:.2f}", "largest deviation of a step, px"),
    "speed_error": ("{:.2f}", "speed outside the data's, px a frame"),
    "velocity_error": ("{:.2f}", "velocity against the caption's, px a frame"),
    "period_drift": ("{:.1%}", "period: change from half to half"),
    "phase_drift": ("{:.1%}", "phase: drift, of a period"),
    "jump": ("{:.2f}", "change of velocity, px a frame"),
    "border_jump": ("{:.2f}", "change of velocity at borders"),
    "identity_drift": ("{:.3f}", "identity drift, 1 - correlation"),
    "frame_error": ("{:.4f}", "adjacent-frame error, squared"),
    "border_frame_error": ("{:.4f}", "adjacent-frame error at borders"),
    "flow_change": ("{:.3f}", "change of flow, px a frame"),
    "border_flow_change": ("{:.3f}", "change of flow at borders"),
    "flow_distance": ("{:.3f}", "distance of flow histograms, px"),
    "flow_change_distance": ("{:.3f}", "distance of flow-change histograms, px"),
    "fvd": ("{:.1f}", "FVD"),
    "frechet_i3d": ("{:.1f}", "Fréchet distance of I3D logits, of clips too few for an FVD"),
    "detail": ("{:.3f}", "detail: difference of neighbouring pixels"),
}

# Of those that tell whether motion holds together, or clips look real, which way is better.
BETTER = {"coherent": "higher", "faithful": "higher"} | dict.fromkeys(
    (
        *("deviation", "velocity_error", "period_drift", "phase_drift", "identity_drift"),
        *("fvd", "frechet_i3d"),
    ),
    "lower",
)

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
        style, usual = FIGURES[name]
        cells = [_cell(column.get(name), style) for column in columns.values()]
        rows.append([(words or {}).get(name, usual), *cells])
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
