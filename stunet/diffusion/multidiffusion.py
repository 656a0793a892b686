"""Temporal MultiDiffusion: denoises a clip in overlapping segments of the network's length.

MultiDiffusion (Bar-Tal et al., arXiv 2302.08113) fuses crops of an image; Lumiere applies it along
time (arXiv 2401.12945, section 3.3), for clips with more frames than the network takes. Each step
splits the noisy clip J into segments J_i of the network's length. It denoises each segment by
itself, which gives Phi(J_i), and continues with the clip J' that minimises

    sum_i sum_k w_i[k] || J'[start_i + k] - Phi(J_i)[k] ||^2

where start_i is the first frame of segment i, k runs over the frames of a segment, and w_i[k] is
the weight of frame k of segment i. In every frame the solution is the weighted mean of the
predictions for this frame. So the segments agree after every step, and later steps can still change
them together. Nothing has to be joined after sampling.

The estimates of the clean clip are averaged, and the sampler's update is done once for the whole
clip. Averaging the segments after the update would give the same result, for two reasons. Segments
that share a frame have the same noisy pixels and the same added noise in this frame. And every
sampler's update is affine in the estimate.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from stunet.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Segments:
    """The overlapping segments of a clip.

    Attributes:
        frames: frames in the clip.
        length: frames in each segment.
        overlap: frames that neighbouring segments share. The last segment ends where the clip ends,
            so it may share more frames with the segment before it.
        starts: first frame of each segment, ascending.
    """

    frames: int
    length: int
    overlap: int
    starts: tuple[int, ...]


def cover(frames: int, length: int, overlap: int) -> Segments:
    """Covers a clip with as few segments as possible.

    Args:
        frames: frames in the clip, at least `length`.
        length: frames in each segment, at least 1.
        overlap: frames that neighbouring segments share, 0 to `length` - 1; Lumiere uses 2.

    Raises:
        UserError: `overlap` is out of range, or the clip is shorter than a segment.
    """
    if not 0 <= overlap < length:
        raise UserError(
            f"the overlap is {overlap} frames; segments of {length} overlap by 0 to {length - 1}"
        )
    if frames < length:
        raise UserError(f"the clip has {frames} frames, fewer than a segment's {length}")
    last = frames - length
    return Segments(frames, length, overlap, (*range(0, last, length - overlap), last))


def _ramp(segments: Segments) -> np.ndarray:
    frame = np.arange(segments.length)
    frames_to_nearer_end = np.minimum(frame + 1, segments.length - frame)
    return np.minimum(frames_to_nearer_end / (segments.overlap + 1), 1.0)


# Weights of the frames in a segment. The papers' weights are uniform. The ramp, which fades one
# segment into the next, is this project's own choice.
WEIGHTS = {
    "uniform": lambda segments: np.ones(segments.length),
    "ramp": _ramp,
}


def frame_weights(segments: Segments, name: str) -> Float[np.ndarray, "l"]:
    """Returns the weights w[k] of a segment's frames, which are the same for all segments.

    Args:
        segments: the segments of a clip.
        name: a key of `WEIGHTS`: "uniform", or "ramp", which falls linearly towards both ends of
            a segment.

    Raises:
        UserError: `name` is unknown.
    """
    return choose(WEIGHTS, name, "weights of MultiDiffusion")(segments)


def normalise_weights(
    segments: Segments, weights: Float[np.ndarray, "l"] | Float[np.ndarray, "n l"]
) -> Float[np.ndarray, "n l"]:
    """Divides the weights by their sum over all segments that hold the same frame.

    The results sum to 1 in every frame of the clip. They are exactly 1 where a single segment holds
    the frame.

    Args:
        segments: n segments of l frames.
        weights: weights above 0, `[l]` if all segments have the same weights, else `[n, l]`.
    """
    weights = np.broadcast_to(weights, (len(segments.starts), segments.length))
    places = np.asarray(segments.starts)[:, None] + np.arange(segments.length)
    total = np.zeros(segments.frames)
    np.add.at(total, places, weights)
    return (weights / total[places]).astype(np.float32)


def add(
    total: Float[np.ndarray, "t ..."],
    predictions: Float[np.ndarray, "n l ..."],
    starts: Sequence[int] | Int[np.ndarray, "n"],
    weights: Float[np.ndarray, "n l"],
) -> None:
    """Adds weighted segments to a running sum over the clip, in place.

    If the sum starts at zero, it ends as the weighted average, once all segments are added. One
    call may add any number of segments.

    Args:
        total: the running sum, over all frames of the clip.
        predictions: n segments of l frames.
        starts: first frame of each segment.
        weights: normalised weights of the segments' frames (`normalise_weights`).
    """
    for segment, start, weight in zip(predictions, starts, weights, strict=True):
        weight = weight.reshape(-1, *[1] * (segment.ndim - 1))
        total[start : start + len(segment)] += weight * segment
