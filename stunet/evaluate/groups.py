"""What `stunet evaluate --metrics` may name: one table, from a name to what is measured of a batch
of clips, and to how two sets of clips are compared by it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stunet.errors import choose
from stunet.evaluate import coherence, i3d, pixels
from stunet.evaluate.frechet import FEWEST, frechet_distance
from stunet.evaluate.scene import Scene
from stunet.evaluate.tracking import Clips

Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, int, int]

# What the name FVD is kept for: 2,048 clips of 16 frames on either side are what published figures
# mostly use (fvd2048_16f: Skorokhodov et al., arXiv 2112.14683), and 64x64 pixels the smallest that
# its authors did (Unterthiner et al., arXiv 1812.01717).
FVD_CLIPS, FVD_FRAMES, FVD_SIZE = 2048, 16, 64


class MetricGroup(NamedTuple):
    """One of the metrics.

    Attributes:
      summary: for the help.
      measure: (clips in -1..1, what is known of them, first frames of windows) -> arrays `[n, ...]`
        by name. Those that `metrics.METRICS` names are figures of each clip; the others are what
        `compare` needs. Empty, where clips have nothing of the kind.
      compare: (arrays of some clips, of those they are compared with) -> figures of the whole set.
      check: of clips' (frames, rows, columns), raises UserError where they cannot be measured; it
        is called before any are sampled.
      beside: metrics without which this one misleads.
      fewest: clips of each set without which it cannot be computed.
    """

    summary: str
    measure: Callable[[Clips, Scene, Sequence[int]], Arrays]
    compare: Callable[[Arrays, Arrays, Shape], dict[str, float]] | None = None
    check: Callable[[Shape], None] = lambda shape: None
    beside: tuple[str, ...] = ()
    fewest: int = 1


def parse(names: str) -> tuple[str, ...]:
    """The metrics of a list with commas, and those that belong beside them, in the table's order.

    Raises:
      UserError: a name that is none.
    """
    wanted = set()
    for name in filter(None, (part.strip() for part in names.split(","))):
        wanted |= {name, *choose(METRIC_GROUPS, name, "metric").beside}
    return tuple(name for name in METRIC_GROUPS if name in wanted)


def frechet_name(clips: int, references: int, shape: Shape) -> tuple[str, str]:
    """What a Fréchet distance of I3D's logits is called, as a figure and in words.

    It is an FVD if both sets and the clips are as large as that is usually computed with, and only
    then: it grows as clips get fewer, and says other things of other sizes.

    Args:
      clips: that were compared.
      references: with so many.
      shape: (frames, rows, columns) of the clips.
    """
    frames, rows, columns = shape
    of = f"{clips:,} clips" + (f" against {references:,}" if references != clips else "")
    of += f" at {rows}x{columns}"
    if (rows, columns) != (224, 224):
        of += f" {'enlarged' if max(rows, columns) < 224 else 'resized'} to 224x224"
    enough = min(clips, references) >= FVD_CLIPS and frames >= FVD_FRAMES
    if enough and min(rows, columns) >= FVD_SIZE:
        return "fvd", f"FVD of {frames} frames, {of}"
    return "frechet_i3d", f"Fréchet distance of I3D logits, {of}"


def _coherence(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    if scene.stage is None:
        return {}
    known = dict(shapes=scene.shapes, truth=scene.truth, borders=borders)
    return coherence.measure(clips, scene.stage, **known)


def _pixels(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    return pixels.measure(clips, borders)


def _flow(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    if not pixels.has_flow(clips.shape[1:4]):
        return {}
    lengths, changes = pixels.flow_histograms(pixels.farneback(clips))
    return {"flow_distance of": lengths, "flow_change_distance of": changes}


def _compare_flow(some: Arrays, others: Arrays, shape: Shape) -> dict[str, float]:
    return {
        name.removesuffix(" of"): pixels.earth_mover(values, others[name])
        for name, values in some.items()
    }


@functools.cache
def _features() -> i3d.Features:
    """Made when the first clips are there: the weights go to the devices."""
    return i3d.Features()


def _logits(clips: Clips, scene: Scene, borders: Sequence[int]) -> Arrays:
    return {"logits": _features()(clips)}


def _compare_logits(some: Arrays, others: Arrays, shape: Shape) -> dict[str, float]:
    one, other = some["logits"], others["logits"]
    name, _ = frechet_name(len(one), len(other), shape)
    return {name: frechet_distance(one, other)}


METRIC_GROUPS = {
    "coherence": MetricGroup("how objects move that can be tracked", _coherence),
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
        beside=("flow",),
        fewest=FEWEST,
    ),
}
# Those that take seconds, and need no weights.
DEFAULT = "coherence,pixels,flow"
