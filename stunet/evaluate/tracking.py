"""Tracks objects in clips to a fraction of a pixel, and compares how they look over time.

The clips are those of `stunet.data.synthetic.motions`, real or generated. Positions are (y, x).
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from stunet.data.synthetic.drawing import render
from stunet.data.synthetic.stage import Stage

Clips = Float[np.ndarray, "n t h w c"]
Positions = Float[np.ndarray, "n o t 2"]

# Brightness below this share of a frame's brightest pixel is ignored.
_FAINT = 0.05
# Template positions per pixel. The best position is interpolated between them.
_PER_PIXEL = 4
# Blurs of the templates, in pixels. Each clip is matched with the blur that fits best, because
# networks blur too.
_BLURS = (0.0, 0.5, 1.0)
# Penalty for a position away from the steady motion, in squared brightness, summed over a line of
# pixels, for each squared pixel of distance. It places an object that another one hides.
_PULL = 0.01
# Pixels of distance from which on the penalty stays the same.
_FARTHEST_PULL = 3.0


def brightness(clips: Clips) -> Float[np.ndarray, "n t h w"]:
    """Returns the mean over colours, mapped from -1..1 to 0..1."""
    return np.clip((clips.mean(axis=-1, dtype=np.float64) + 1) / 2, 0, 1)


def track(clips: Clips, stage: Stage, shapes: Sequence[Sequence[str]] | None = None) -> Positions:
    """Finds the positions of the objects in each clip.

    Args:
        clips: clips in -1..1.
        stage: canvas and motion of the clips.
        shapes: shapes of the two objects of each clip, in the order of the returned positions;
            needed for `cross` only.
    """
    if stage.motion == "cross":
        return pairs(clips, stage, shapes)
    return centroids(clips)[:, None]


def centroids(clips: Clips) -> Float[np.ndarray, "n t 2"]:
    """Finds the centre of brightness on a torus, by the first Fourier mode along each axis.

    The centre is exact for a symmetric object at any position, also across the edges. A constant
    background and faint pixels do not move it. Along an axis of fewer than 4 pixels the centre is
    the middle.
    """
    light = brightness(clips)
    light -= np.median(light, axis=(2, 3), keepdims=True)
    # Faint noise covers many more pixels than the object, and would count as much as the object.
    light = np.maximum(light - _FAINT * light.max(axis=(2, 3), keepdims=True), 0)
    positions = []
    for axis, across in ((2, 3), (3, 2)):
        extent = light.shape[axis]
        if extent < 4:
            positions.append(np.full(light.shape[:2], (extent - 1) / 2))
            continue
        mode = np.fft.fft(light.sum(axis=across), axis=-1)[..., 1]
        positions.append(-np.angle(mode) * extent / (2 * np.pi) % extent)
    return np.stack(positions, -1)


def pairs(clips: Clips, stage: Stage, shapes: Sequence[Sequence[str]]) -> Positions:
    """Finds two objects of known shapes on one line, as the pair of templates that fits best.

    Each frame is reduced to one row, which holds the brightest pixel of each column, and to one
    column, which holds the brightest pixel of each row. The objects move along the row or the
    column, whichever changes more over time. If one object hides the other, the hidden object's
    motion in the other frames decides where it is.
    """
    light = brightness(clips)
    # Both objects and their common centre lie on the same row (or column).
    found = np.repeat(centroids(clips)[:, None], 2, axis=1)
    for i, (clip, (first, second)) in enumerate(zip(light, shapes, strict=True)):
        lines = {axis: clip.max(axis=2 - axis) for axis in stage.axes}
        axis = max(lines, key=lambda axis: lines[axis].var(axis=0).sum())
        found[i, :, :, axis] = _pair_on_line(lines[axis], stage, axis, first, second)
    return found


def angles(positions: Positions, stage: Stage) -> Float[np.ndarray, "n o t"]:
    """Returns the angle of each rotating arm in each frame: radians, clockwise from the right."""
    y, x = np.moveaxis(positions - np.array(stage.centre), -1, 0)
    return np.arctan2(y, x)


def similarity(clips: Clips, positions: Positions, stage: Stage) -> Float[np.ndarray, "n o t"]:
    """Correlates each object's look in each frame with its look in the first frame, -1..1.

    Each object is cut out around its position at sub-pixel precision. An object that turns about
    the centre of the picture (an arm) is first rotated until it points to the right. The value is
    NaN in frames where two objects overlap. If they overlap in the first frame, the first frame
    without overlap takes its place.
    """
    light = brightness(clips)
    turned = angles(positions, stage) if stage.motion == "rotate" else np.zeros(positions.shape[:3])
    reach = np.ceil((stage.arm if stage.motion == "rotate" else stage.size) / 2)
    grid = np.arange(-reach, reach + 1)
    rows = grid if stage.height >= 2 * stage.size or stage.motion == "rotate" else np.zeros(1)
    v, u = np.meshgrid(rows, grid, indexing="ij")
    sin, cos = np.sin(turned)[..., None, None], np.cos(turned)[..., None, None]
    y = positions[..., 0, None, None] + cos * v + sin * u
    x = positions[..., 1, None, None] - sin * v + cos * u
    cut = np.empty(y.shape)
    for i, o, k in np.ndindex(y.shape[:3]):
        at = np.stack([y[i, o, k], x[i, o, k]])
        if stage.height < 4:
            at[0] = round(stage.centre[0])
        cut[i, o, k] = ndimage.map_coordinates(light[i, k], at, order=3, mode="grid-wrap")
    cut = cut.reshape(*cut.shape[:3], -1)
    cut -= cut.mean(-1, keepdims=True)
    cut /= np.maximum(np.linalg.norm(cut, axis=-1, keepdims=True), 1e-9)
    clear = _apart(positions, stage) > 1.2 * stage.size
    first = np.take_along_axis(cut, clear.argmax(-1)[..., None, None], 2)
    return np.where(clear, (cut * first).sum(-1), np.nan)


def _apart(positions: Positions, stage: Stage) -> np.ndarray:
    """Returns the distance [n, o, t] between two objects; infinite for a single object."""
    if positions.shape[1] == 1:
        return np.full(positions.shape[:3], np.inf)
    extents = np.array([stage.height, stage.width])
    offset = positions[:, 0] - positions[:, 1]
    distance = np.linalg.norm((offset + extents / 2) % extents - extents / 2, axis=-1)
    return np.stack([distance, distance], 1)


def _pair_on_line(line: np.ndarray, stage: Stage, axis: int, first: str, second: str) -> np.ndarray:
    """Finds the positions [2, t] of two objects along a line of pixels [t, extent]."""
    extent = stage.extent(axis)
    spots = np.arange(_PER_PIXEL * extent) / _PER_PIXEL
    errors = [_errors(line, *_both(stage, axis, first, second, blur)) for blur in _BLURS]
    error = min(errors, key=lambda error: error.min(axis=(1, 2)).sum())
    best = _best(error, spots)
    expected = np.stack([_steady(track, extent) for track in best])
    offset = (spots - expected[..., None] + extent / 2) % extent - extent / 2  # [2, t, spots]
    pull = _PULL * np.minimum(np.abs(offset), _FARTHEST_PULL) ** 2
    return _best(error + pull[0][:, :, None] + pull[1][:, None, :], spots) % extent


def _errors(line: np.ndarray, both: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Returns squared differences [t, spots, spots] of a line from the templates of two objects.

    There is a template for each pair of positions ("spots") of the objects on the line. The sum
    of squares of the line itself is left out, because it is the same for all templates.
    """
    return power - 2 * np.tensordot(line.astype(np.float32), both, (1, 2))


@functools.lru_cache(maxsize=36)
def _both(stage: Stage, axis: int, first: str, second: str, blur: float):
    """Draws two objects on a line of pixels, at each pair of positions ("spots").

    Returns the drawings [spots, spots, extent], and the sum of squares of each.
    """
    spots = np.arange(_PER_PIXEL * stage.extent(axis)) / _PER_PIXEL
    a, b = (_templates(stage, axis, shape, spots, blur) for shape in (first, second))
    both = np.maximum(a[:, None], b[None]).astype(np.float32)
    return both, (both**2).sum(-1)


def _templates(stage: Stage, axis: int, shape: str, spots: np.ndarray, blur: float) -> np.ndarray:
    """Draws an object on a line of pixels at each position in `spots`. Returns [spots, extent]."""
    at = np.full((len(spots), 2), float(np.floor(stage.centre[1 - axis])))
    if len(stage.axes) == 1:
        at[:] = stage.centre[1 - axis]
    at[:, axis] = spots
    drawn = render(stage, [shape], at[None]) / 255
    return ndimage.gaussian_filter(drawn, (0, blur, blur), mode="wrap").max(axis=2 - axis)


def _best(error: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """Finds the pair of positions [2, t], in pixels, with the smallest error in each frame.

    `error` [t, spots, spots] has a value for each pair of positions in `spots`. A parabola through
    3 neighbouring spots then refines each position to a fraction of the distance between spots.
    """
    count, frames = len(spots), np.arange(len(error))
    a, b = np.unravel_index(error.reshape(len(error), -1).argmin(1), error.shape[1:])
    along = [
        np.stack([error[frames, (a + k) % count, b] for k in (-1, 0, 1)]),
        np.stack([error[frames, a, (b + k) % count] for k in (-1, 0, 1)]),
    ]
    shifts = [
        (before - after) / 2 / np.maximum(before - 2 * least + after, 1e-9)
        for before, least, after in along
    ]
    return (np.stack([a, b]) + np.clip(shifts, -0.5, 0.5)) / _PER_PIXEL


def _steady(track: np.ndarray, extent: int) -> np.ndarray:
    """Fits a motion of constant velocity on a torus to positions [t], ignoring outliers."""
    frames = np.arange(len(track))
    turns = np.linspace(-0.5, 0.5, 16 * len(track), endpoint=False)
    waves = np.exp(2j * np.pi * (track / extent - turns[:, None] * frames))
    sums = waves.sum(-1)
    best = np.abs(sums).argmax()
    return extent * (np.angle(sums[best]) / (2 * np.pi) + turns[best] * frames)
