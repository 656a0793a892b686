"""Temporal MultiDiffusion: a clip longer than a network's, denoised in overlapping segments.

Bar-Tal et al., MultiDiffusion (arXiv 2302.08113), which fuses crops of an image; along time as in
Lumiere (arXiv 2401.12945, section 3.3). Each step splits the noisy clip J into segments J_i of the
network's length, denoises each by itself, Phi(J_i), and goes on with the clip J' that minimises

    sum_i sum_k w_i[k] || J'[start_i + k] - Phi(J_i)[k] ||^2

over frames k of a segment: in every frame, the mean of the predictions for it, weighted by w_i. So
segments are pulled together anew in every step, instead of being joined when each has made up its
mind.

Averaged are estimates of the clean clip, and the sampler's update is done once for the whole clip.
That is the same as averaging what each segment would be after the update: the noisy clip and the
noise that is added are the same for all that share a frame, and every sampler's update is affine in
the estimate.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from stunet.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Segments:
    """How a clip is split.

    Attributes:
        frames: of the clip.
        length: frames of a segment.
        overlap: frames that neighbours share; the last segment ends with the clip, and so may share
            more with the one before.
        starts: first frame of each segment, ascending.
    """

    frames: int
    length: int
    overlap: int
    starts: tuple[int, ...]


def cover(frames: int, length: int, overlap: int) -> Segments:
    """As few segments as hold every frame.

    Args:
        frames: of the clip, at least `length`.
        length: frames of a segment, at least 1.
        overlap: frames that neighbours share, 0 to `length` - 1; Lumiere's is 2.

    Raises:
        UserError: any of them is out of range.
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
    to_the_end = np.minimum(
        np.arange(segments.length) + 1, segments.length - np.arange(segments.length)
    )
    return np.minimum(to_the_end / (segments.overlap + 1), 1.0)


# Of the frames of a segment. Uniform is the papers'; a ramp fades one segment into the next, and is
# a choice of this project.
WEIGHTS = {
    "uniform": lambda segments: np.ones(segments.length),
    "ramp": _ramp,
}


def frame_weights(segments: Segments, name: str) -> Float[np.ndarray, "l"]:
    """The weights w[k] that all segments have.

    Args:
        segments: of `cover`.
        name: a key of `WEIGHTS`: "uniform", or "ramp", which falls linearly over the overlap.

    Raises:
        UserError: unknown name.
    """
    return choose(WEIGHTS, name, "weights of MultiDiffusion")(segments)


def shares(
    segments: Segments, weights: Float[np.ndarray, "l"] | Float[np.ndarray, "n l"]
) -> Float[np.ndarray, "n l"]:
    """How much of the average in a frame is each segment's: w_i[k] / sum over segments there.

    They sum to 1 in every frame, and are exactly 1 where there is but one segment.

    Args:
        segments: n of l frames.
        weights: w, above 0; of every segment, or the same for all.
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
    share: Float[np.ndarray, "n l"],
) -> None:
    """Adds segments, weighted by their `shares`, to a clip that holds the sum so far.

    In place, and of as few segments at a time as one likes: begun with zeros, it is the average
    when all have been added.
    """
    for segment, start, weight in zip(predictions, starts, share, strict=True):
        weight = weight.reshape(-1, *[1] * (segment.ndim - 1))
        total[start : start + len(segment)] += weight * segment
