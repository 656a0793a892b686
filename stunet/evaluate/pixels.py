"""Measures the motion of any clip from its pixels: differences of frames, and optical flow.

The optical flow is Farnebäck's ("Two-frame motion estimation based on polynomial expansion", 2003),
as OpenCV computes it.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError
from stunet.evaluate.coherence import PerClip, at_and_elsewhere
from stunet.evaluate.tracking import Clips, brightness

# Clips with fewer rows or columns have no meaningful flow.
MIN_ROWS = 8
# Clips are enlarged to about this many rows, because the flow uses neighbourhoods of fixed size.
_ROWS = 32
_WINDOW = 9
_LEVELS = np.linspace(0, 1, 2001)

Flow = Float[np.ndarray, "n s h w 2"]
Histograms = Float[np.ndarray, "n q"]


def measure(clips: Clips, borders: Sequence[int] = ()) -> dict[str, PerClip]:
    """Measures all metrics that need no tracking, for clips of any kind.

    Args:
        clips: clips in -1..1.
        borders: first frame of each window except the first window, as in `coherence.measure`.

    Returns:
        frame_error: mean squared difference of adjacent frames, except at borders. Brightness is in
            0..1.
        border_frame_error: mean squared difference of the two frames at a border; only with
            `borders`.
        detail: mean difference of neighbouring pixels; brightness is in 0..1. Blur lowers `detail`.
        flow: mean length of the optical flow in pixels per frame, which is the amount of motion.
            Only clips of 8 rows and columns or more, and of 3 frames or more, have a flow.
        flow_change: mean change of the flow from step to step in pixels per frame, except at
            borders.
        border_flow_change: mean change of the flow at borders; only with `borders`.
    """
    light = brightness(clips)
    error = (np.diff(light, axis=1) ** 2).mean(axis=(2, 3))
    at_borders, elsewhere = at_and_elsewhere(error, {b - 1 for b in borders})
    values = {"frame_error": elsewhere}
    if borders:
        values["border_frame_error"] = at_borders
    values["detail"] = np.mean(
        [_roughness(light, axis) for axis in (2, 3) if light.shape[axis] > 1], 0
    )
    if has_flow(clips.shape[1:4]):
        flow = farneback(clips)
        values["flow"] = lengths(flow).mean(axis=(1, 2, 3))
        change = lengths(np.diff(flow, axis=1)).mean(axis=(2, 3))
        at_borders, elsewhere = at_and_elsewhere(
            change, {k for b in borders for k in (b - 2, b - 1)}
        )
        values["flow_change"] = elsewhere
        if borders:
            values["border_flow_change"] = at_borders
    return values


def has_flow(shape: tuple[int, int, int]) -> bool:
    """Tells whether clips of (frames, rows, columns) are large and long enough for a flow."""
    return min(shape[1:]) >= MIN_ROWS and shape[0] >= 3


def check_flow(shape: tuple[int, int, int]) -> None:
    """Checks that OpenCV is installed if clips of (frames, rows, columns) have a flow.

    Raises:
        UserError: OpenCV is needed and not installed.
    """
    if has_flow(shape):
        _opencv()


def farneback(clips: Clips) -> Flow:
    """Computes the optical flow (dy, dx) of each pixel to the next frame, in pixels per frame.

    Raises:
        UserError: OpenCV is not installed.
    """
    cv2 = _opencv()
    grey = np.rint(255 * brightness(clips)).astype(np.uint8)
    n, t, height, width = grey.shape
    scale = max(1, round(_ROWS / min(height, width)))
    size = (scale * width, scale * height)
    flow = np.empty((n, t - 1, height, width, 2), np.float32)
    for i, clip in enumerate(grey):
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in clip]
        for k in range(t - 1):
            large = cv2.calcOpticalFlowFarneback(
                frames[k], frames[k + 1], None, 0.5, 3, _WINDOW, 3, 5, 1.1, 0
            )
            small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
            flow[i, k] = small[..., ::-1] / scale
    return flow


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "optical flow needs OpenCV: pip install opencv-python-headless, or stunet[evaluate]"
        ) from error
    return cv2


def flow_distance(one: Flow, other: Float[np.ndarray, "m s h w 2"]) -> tuple[float, float]:
    """Returns two distances between the optical flows of two sets of clips, in pixels per frame.

    The first distance compares the lengths of the flow, which show the amount of motion. The second
    distance compares the sizes of changes of the flow, which show how steady the motion is. Each is
    the earth mover's distance between two histograms. It says how far values must move, on average,
    to turn one histogram into the other.
    """
    pairs = zip(flow_histograms(one), flow_histograms(other), strict=True)
    lengths, changes = (earth_mover(*pair) for pair in pairs)
    return lengths, changes


def flow_histograms(flow: Flow) -> tuple[Histograms, Histograms]:
    """Returns each clip's quantiles of flow lengths, and of the sizes of flow changes.

    The quantiles represent the clip when sets are compared, so that no flow has to be stored.
    """
    length_quantiles, change_quantiles = (
        np.quantile(values.reshape(len(values), -1), _LEVELS, axis=1).T.astype(np.float32)
        for values in (lengths(flow), lengths(np.diff(flow, axis=1)))
    )
    return length_quantiles, change_quantiles


def earth_mover(one: Histograms, other: Float[np.ndarray, "m q"]) -> float:
    """Returns the earth mover's distance between the histograms of two sets of clips."""
    return float(np.abs(np.quantile(one, _LEVELS) - np.quantile(other, _LEVELS)).mean())


def lengths(flow: Float[np.ndarray, "n s h w 2"]) -> Float[np.ndarray, "n s h w"]:
    """Returns the lengths of flow vectors in pixels per frame."""
    return np.linalg.norm(flow, axis=-1)


def _roughness(light: np.ndarray, axis: int) -> np.ndarray:
    """Returns each clip's mean difference of neighbouring pixels along an axis."""
    return np.abs(np.diff(light, axis=axis)).mean(axis=(1, 2, 3))
