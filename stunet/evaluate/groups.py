"""Defines the groups of metrics that `stunet evaluate --metrics` chooses from, in one table.

Each group says what it measures of a batch of clips and how it compares two sets of clips.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stunet import extensions
from stunet.data.synthetic.moving_digits import GREY
from stunet.errors import UserError
from stunet.evaluate import coherence, digits, i3d, pixels
from stunet.evaluate.frechet import MIN_SAMPLES, frechet_distance
from stunet.evaluate.metrics import METRICS, Metric, MetricValues
from stunet.evaluate.scene import Scene
from stunet.evaluate.tracking import Clips

# Arrays [n, ...] by name, with one row for each clip.
Arrays = Mapping[str, np.ndarray]
# (frames, rows, columns) of the clips.
Shape = tuple[int, int, int]

# A Fréchet distance is called FVD only for at least this many clips on each side, of at least this
# many frames, rows and columns. Published FVDs mostly use 2,048 clips of 16 frames (fvd2048_16f:
# Skorokhodov et al., arXiv 2112.14683). 64x64 pixels are the smallest clips of FVD's authors
# (Unterthiner et al., arXiv 1812.01717).
FVD_CLIPS, FVD_FRAMES, FVD_SIZE = 2048, 16, 64


@dataclasses.dataclass(frozen=True)
class MetricGroup:
    """Measures one group of metrics.

    Attributes:
        summary: what the group measures, for the help text.
        measure: function of clips in -1..1, of the scene that they show, and of the first frames of
            windows. Returns arrays by name. Arrays named in `metrics.METRICS` are metrics of each
            clip. All other arrays are features that `compare` needs. The result is empty for clips
            that cannot be measured.
        compare: function of the features of two sets of clips, and of the clips' shape. Returns
            metrics of the whole first set. None for a group that compares no sets.
        check: raises a UserError if clips of this shape cannot be measured. It is called before any
            clip is sampled.
        companions: groups that are always measured together with this group, because its metrics
            alone would mislead.
        min_clips: smallest number of clips in each set for which the metrics can be computed.
        rows: how tables show metrics of the group that `metrics.METRICS` does not list.
    """

    summary: str
    measure: Callable[[Clips, Scene, Sequence[int]], Arrays]
    compare: Callable[[Arrays, Arrays, Shape], dict[str, float]] | None = None
    check: Callable[[Shape], None] = lambda shape: None
    companions: tuple[str, ...] = ()
    min_clips: int = 1
    rows: Mapping[str, Metric] = dataclasses.field(default_factory=dict)


def find(name: str) -> MetricGroup:
    """Returns the group of that name: a key of `METRIC_GROUPS`, or a user's own object."""
    return extensions.find(METRIC_GROUPS, name, extensions.Metric)


def parse(names: str) -> tuple[str, ...]:
    """Parses a comma-separated list of groups and adds their companions.

    The groups are in the table's order. Users' own groups come last.

    Raises:
        UserError: there is no group of such a name.
    """
    chosen: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        chosen |= dict.fromkeys((name, *find(name).companions))
    own = (name for name in chosen if name not in METRIC_GROUPS)
    return (*(name for name in METRIC_GROUPS if name in chosen), *own)


def known_metrics(groups: Sequence[str]) -> dict[str, Metric]:
    """Returns how tables show each metric that groups may have, by name, in the tables' order."""
    return METRICS | {name: row for group in groups for name, row in find(group).rows.items()}


def check_sets(groups: Sequence[str], shape: Shape, sets: Mapping[str, int]) -> None:
    """Checks that groups of metrics can be computed for sets of clips.

    Args:
        groups: names of groups.
        shape: shape of the clips.
        sets: number of clips in each set, by its name.

    Raises:
        UserError: the clips' shape or number is too small for a group.
    """
    for name in groups:
        find(name).check(shape)
        min_clips = find(name).min_clips
        if min(sets.values()) < min_clips:
            found = ", ".join(f"{count} {which}" for which, count in sets.items())
            raise UserError(
                f"{name} needs {min_clips} clips in each set, and there are {found} ones"
            )


def metric_values(
    measured: Mapping[str, Arrays],
    reference: Mapping[str, Arrays],
    shape: Shape,
    known: Mapping[str, Metric],
    rows: Sequence[int],
    counts: Sequence[int],
) -> MetricValues:
    """Returns the values of all metrics of a set of clips.

    Metrics of each clip are taken at `rows`. Metrics of the whole set are computed for the first
    clips, once for each of `counts`, and repeated for each row. If two counts give a metric of the
    same name, the later value is kept. The name of a Fréchet distance depends on the count.

    Args:
        measured: arrays of the set, by the name of the group.
        reference: arrays of the clips to compare with, by the name of the group.
        shape: shape of the clips.
        known: what `known_metrics` returns.
        rows: numbers of clips.
        counts: numbers of clips to compare.
    """
    values = {}
    for group, arrays in measured.items():
        values |= {k: np.asarray(v)[list(rows)] for k, v in arrays.items() if k in known}
        if compare := find(group).compare:
            for count in dict.fromkeys(counts):
                first = {k: v[:count] for k, v in arrays.items()}
                distances = compare(first, reference[group], shape)
                values |= {name: np.full(len(rows), value) for name, value in distances.items()}
    return {name: values[name] for name in known if name in values}


def frechet_name(clips: int, references: int, shape: Shape) -> tuple[str, str]:
    """Returns the name and the title of the metric for a Fréchet distance of I3D logits.

    The distance is called FVD only if the numbers of clips and the size of the clips are at least
    as large as is usual for FVD. A distance is larger for fewer clips, and differs for clips of
    other sizes.

    Args:
        clips: number of clips that were compared.
        references: number of clips that they were compared with.
        shape: (frames, rows, columns) of the clips.
    """
    frames, rows, columns = shape
    sets = f"{clips:,} clips" + (f" against {references:,}" if references != clips else "")
    sets += f" at {rows}x{columns}"
    if (rows, columns) != (i3d.SIZE, i3d.SIZE):
        change = "enlarged" if max(rows, columns) < i3d.SIZE else "resized"
        sets += f" {change} to {i3d.SIZE}x{i3d.SIZE}"
    enough = min(clips, references) >= FVD_CLIPS and frames >= FVD_FRAMES
    if enough and min(rows, columns) >= FVD_SIZE:
        return "fvd", f"FVD of {frames} frames, {sets}"
    return "frechet_i3d", f"Fréchet distance of I3D logits, {sets}"


def _coherence(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    if scene.stage is None:
        return {}
    known = dict(shapes=scene.shapes, truth=scene.truth, factors=scene.factors, borders=borders)
    if scene.look != GREY:
        clips = digits.light(clips, scene.look)
    return coherence.measure(clips, scene.stage, **known)


def _captions(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    return digits.measure(clips, scene.asked) if scene.asked else {}


def _pixels(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    return pixels.measure(clips, borders)


def _flow(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    if not pixels.has_flow(clips.shape[1:4]):
        return {}
    lengths, changes = pixels.flow_histograms(pixels.farneback(clips))
    return {"flow_lengths": lengths, "flow_changes": changes}


def _compare_flow(features: Arrays, reference: Arrays, shape: Shape) -> dict[str, float]:
    metrics = {"flow_distance": "flow_lengths", "flow_change_distance": "flow_changes"}
    return {
        metric: pixels.earth_mover(features[name], reference[name])
        for metric, name in metrics.items()
        if name in features
    }


@functools.cache
def _features() -> i3d.Features:
    """Returns the network I3D. The first call loads it, because its weights take device memory."""
    return i3d.Features()


def _logits(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    return {"logits": _features()(clips)}


def _compare_logits(features: Arrays, reference: Arrays, shape: Shape) -> dict[str, float]:
    logits, reference_logits = features["logits"], reference["logits"]
    name, _ = frechet_name(len(logits), len(reference_logits), shape)
    return {name: frechet_distance(logits, reference_logits)}


METRIC_GROUPS = {
    "captions": MetricGroup("whether clips of a moving digit show what captions say", _captions),
    "coherence": MetricGroup("motion of objects that can be tracked", _coherence),
    "pixels": MetricGroup(
        "differences of frames, optical flow, detail", _pixels, check=pixels.check_flow
    ),
    "flow": MetricGroup(
        "distances of flow histograms from training clips",
        _flow,
        _compare_flow,
        check=pixels.check_flow,
    ),
    "fvd": MetricGroup(
        "Fréchet distance of I3D logits from training clips, beside that of real clips and that of "
        "real clips whose frames are shuffled",
        _logits,
        _compare_logits,
        check=lambda shape: i3d.check_clips(shape[0]),
        companions=("flow",),
        min_clips=MIN_SAMPLES,
    ),
}
# These groups take seconds and need no weights.
DEFAULT = "coherence,pixels,flow"
