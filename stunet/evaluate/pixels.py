"""How any clip moves, from its pixels alone: differences of frames, and optical flow.

The flow is Farnebäck's ("Two-frame motion estimation based on polynomial expansion", 2003), as
OpenCV computes it.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError
from stunet.evaluate.coherence import PerClip, at_and_elsewhere
from stunet.evaluate.tracking import Clips, brightness

# Rows and columns below which a flow means nothing.
FEWEST_ROWS = 8
# Clips are enlarged to this many rows, since the flow looks at neighbourhoods of fixed size.
_ROWS = 32
_WINDOW = 9
_LEVELS = np.linspace(0, 1, 2001)

Flow = Float[np.ndarray, "n s h w 2"]
Histograms = Float[np.ndarray, "n q"]


def measure(clips: Clips, borders: Sequence[int] = ()) -> dict[str, PerClip]:
    """All figures of clips of any kind.

    Args:
      clips: in -1..1.
      borders: first frames of windows, to tell what happens there from what happens elsewhere.

    Returns:
      frame_error: mean squared difference of adjacent frames in 0..1, but at borders.
      border_frame_error: the same at borders, if there are any.
      detail: mean difference of neighbouring pixels, in 0..1; blur takes it away.
      flow: pixels a frame, the mean length of the flow: the amount of motion. Of 8 rows or more.
      flow_change: pixels a frame, the mean change of the flow from step to step, but at borders.
      border_flow_change: the same at borders, if there are any.
    """
    light = brightness(clips)
    error = (np.diff(light, axis=1) ** 2).mean(axis=(2, 3))
    at_borders, elsewhere = at_and_elsewhere(error, {b - 1 for b in borders})
    table = {"frame_error": elsewhere}
    if borders:
        table["border_frame_error"] = at_borders
    table["detail"] = np.mean(
        [_roughness(light, axis) for axis in (2, 3) if light.shape[axis] > 1], 0
    )
    if has_flow(clips.shape[1:4]):
        flow = farneback(clips)
        table["flow"] = lengths(flow).mean(axis=(1, 2, 3))
        change = lengths(np.diff(flow, axis=1)).mean(axis=(2, 3))
        at_borders, elsewhere = at_and_elsewhere(
            change, {k for b in borders for k in (b - 2, b - 1)}
        )
        table["flow_change"] = elsewhere
        if borders:
            table["border_flow_change"] = at_borders
    return table


def has_flow(shape: tuple[int, int, int]) -> bool:
    """Whether clips of so many frames, rows and columns are large enough for a flow, and at least
    three frames long."""
    return min(shape[1:]) >= FEWEST_ROWS and shape[0] >= 3


def check_flow(shape: tuple[int, int, int]) -> None:
    """Raises: UserError, if such clips have a flow and OpenCV is not installed."""
    if has_flow(shape):
        _opencv()


def farneback(clips: Clips) -> Flow:
    """(dy, dx) in pixels a frame, of each pixel from each frame to the next.

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
    """Distances between the histograms of two sets of clips: of lengths of the flow, and of lengths
    of its change from step to step.

    Each is the earth mover's: the pixels a frame by which values must be moved, on average, to make
    one histogram of the other. The first tells how much moves, the second how steadily.
    """
    pairs = zip(flow_histograms(one), flow_histograms(other), strict=True)
    lengths, changes = (earth_mover(*pair) for pair in pairs)
    return lengths, changes


def flow_histograms(flow: Flow) -> tuple[Histograms, Histograms]:
    """Of each clip, the quantiles of the lengths of its flow, and of those of its changes.

    They stand for the clip when sets are compared, so that no flow need be kept.
    """
    values = lengths(flow), lengths(np.diff(flow, axis=1))
    of_lengths, of_changes = (
        np.quantile(x.reshape(len(x), -1), _LEVELS, axis=1).T.astype(np.float32) for x in values
    )
    return of_lengths, of_changes


def earth_mover(one: Histograms, other: Float[np.ndarray, "m q"]) -> float:
    """Between two sets of clips, each of which is as large as any other."""
    return float(np.abs(np.quantile(one, _LEVELS) - np.quantile(other, _LEVELS)).mean())


def lengths(flow: Float[np.ndarray, "n s h w 2"]) -> Float[np.ndarray, "n s h w"]:
    """Pixels a frame."""
    return np.linalg.norm(flow, axis=-1)


def _roughness(light: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(np.diff(light, axis=axis)).mean(axis=(1, 2, 3))
