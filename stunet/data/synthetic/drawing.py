"""Draws simple objects at any positions, to a fraction of a pixel."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from stunet.data.synthetic.stage import Stage

# Softness of all edges in pixels. It is large enough for the centre of the drawn object to follow
# sub-pixel motion (to 0.02 px), and small enough to look sharp.
_EDGE = 0.4
_RING = 0.6

# Brightness, 0..1, at distance r from the centre of an object `size` pixels across. All shapes are
# round, so that their centroid is their position. They also differ on a single row.
SHAPES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "dot": lambda r, size: np.exp(-((6 * r / size) ** 2) / 2),
    "disc": lambda r, size: _inside(r - size / 2),
    "ring": lambda r, size: np.exp(-(((r - 0.4 * size) / _RING) ** 2) / 2),
}


def render(
    stage: Stage, shapes: Sequence[str], positions: Float[np.ndarray, "o t 2"]
) -> UInt8[np.ndarray, "t h w"]:
    """Draws objects at any positions. Where objects overlap, the brighter pixel is shown.

    Args:
        stage: the canvas and the motion.
        shapes: shape of each object: a key of `SHAPES`, or "arm" for a bar that points away from
            the centre of the canvas.
        positions: (y, x) of each object in each frame.

    Returns:
        Grey values, 0 (black) to 255.
    """
    clip = np.zeros((positions.shape[1], stage.height, stage.width))
    for shape, at in zip(shapes, positions, strict=True):
        dy = (np.arange(stage.height) - at[:, :1])[:, :, None]
        dx = (np.arange(stage.width) - at[:, 1:])[:, None, :]
        if stage.wraps[0]:
            dy = _around(dy, stage.height)
        if stage.wraps[1]:
            dx = _around(dx, stage.width)
        if shape == "arm":
            drawn = _draw_arm(stage, at, dy, dx)
        else:
            drawn = SHAPES[shape](np.hypot(dy, dx), stage.size)
        clip = np.maximum(clip, drawn)
    return np.round(255 * clip).astype(np.uint8)


def _draw_arm(stage: Stage, at: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """Draws a bar [t, h, w] that begins at the canvas centre, with its middle at `at` [t, 2]."""
    y, x = (at - stage.centre).T[:, :, None, None]
    length = np.maximum(np.hypot(y, x), 1e-9)
    outwards, sideways = (dy * y + dx * x) / length, (dx * y - dy * x) / length
    thickness = stage.size / 2
    beyond = np.maximum(np.abs(outwards) - (stage.arm - thickness) / 2, 0)
    return _inside(np.hypot(beyond, sideways) - thickness / 2)


def _inside(distance: np.ndarray) -> np.ndarray:
    """Maps signed distances from an object's edge to brightness, with a soft step from 1 to 0.

    Distances inside of the object are negative.
    """
    return 0.5 - 0.5 * np.tanh(distance / (2 * _EDGE))


def _around(offset: np.ndarray, extent: int) -> np.ndarray:
    """Wraps an offset on a torus to the signed distance in -extent/2..extent/2."""
    return (offset + extent / 2) % extent - extent / 2
