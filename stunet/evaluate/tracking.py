"""Where objects are in each frame of a clip, to a fraction of a pixel, and whether they look alike.

For clips of `stunet.data.synthetic.motions`, real or generated. Positions are (y, x) as there.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from stunet.data.synthetic.motions import Stage, render

Clips = Float[np.ndarray, "n t h w c"]
Positions = Float[np.ndarray, "n o t 2"]

# As a share of the brightest pixel of a frame.
_FAINT = 0.05
# Of positions of templates; between them the best one is interpolated.
_PER_PIXEL = 4
# Of templates, in pixels; that of a clip is the one that fits best, as networks blur too.
_BLURS = (0.0, 0.5, 1.0)
# A hidden object lies where its motion leads to, unless the frame says otherwise: squared
# brightness, summed over a line of pixels, for each squared pixel of distance.
_PULL = 0.01
_FARTHEST_PULL = 3.0


def brightness(clips: Clips) -> Float[np.ndarray, "n t h w"]:
    """Mean over colours, mapped from -1..1 to 0..1."""
    return np.clip((clips.mean(axis=-1, dtype=np.float64) + 1) / 2, 0, 1)


def track(clips: Clips, stage: Stage, shapes: Sequence[Sequence[str]] | None = None) -> Positions:
    """Positions of the objects of each clip.

    Args:
      clips: in -1..1.
      stage: what they show.
      shapes: of each clip, those of its two objects, in the order wanted; needed for `cross` alone.
    """
    if stage.motion == "cross":
        return pairs(clips, stage, shapes)
    return centroids(clips)[:, None]


def centroids(clips: Clips) -> Float[np.ndarray, "n t 2"]:
    """The centre of brightness on a torus: the phase of the first Fourier mode along each axis.

    It is exact for a symmetric object wherever it lies, across the edges too. A constant background
    and what is faint beside the object do not move it. Along an axis of less than 4 pixels it is
    the middle.
    """
    light = brightness(clips)
    light -= np.median(light, axis=(2, 3), keepdims=True)
    # Faint noise would count as much as the object, since there is so much more of it.
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
    """Two objects of known shapes on one line, found as the pair of templates that fits best.

    The line is that axis along which the clip changes most; each frame is reduced to it by the
    brightest pixel across. Where one object hides the other, the hidden one is looked for where the
    other frames say that it should be.
    """
    light = brightness(clips)
    # Both lie on the same row (or column), and so does their common centre.
    found = np.repeat(centroids(clips)[:, None], 2, axis=1)
    for i, (clip, (first, second)) in enumerate(zip(light, shapes, strict=True)):
        lines = {axis: clip.max(axis=2 - axis) for axis in stage.axes}
        axis = max(lines, key=lambda axis: lines[axis].var(axis=0).sum())
        found[i, :, :, axis] = _pair_on_line(lines[axis], stage, axis, first, second)
    return found


def angles(positions: Positions, stage: Stage) -> Float[np.ndarray, "n o t"]:
    """Of the arm, in radians, clockwise from pointing right."""
    y, x = np.moveaxis(positions - np.array(stage.centre), -1, 0)
    return np.arctan2(y, x)


def likeness(clips: Clips, positions: Positions, stage: Stage) -> Float[np.ndarray, "n o t"]:
    """Correlation, -1..1, of each object in each frame with itself in the first.

    Each is cut out around its position, an arm turned back, at sub-pixel precision. Frames where
    two objects overlap are NaN, and the first where they do not is compared with.
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
    """[n, o, t]: pixels from each object to the other; infinite where there is one only."""
    if positions.shape[1] == 1:
        return np.full(positions.shape[:3], np.inf)
    extents = np.array([stage.height, stage.width])
    offset = positions[:, 0] - positions[:, 1]
    distance = np.linalg.norm((offset + extents / 2) % extents - extents / 2, axis=-1)
    return np.stack([distance, distance], 1)


def _pair_on_line(line: np.ndarray, stage: Stage, axis: int, first: str, second: str) -> np.ndarray:
    """Positions [2, t] along a line of pixels [t, extent]."""
    extent = stage.extent(axis)
    spots = np.arange(_PER_PIXEL * extent) / _PER_PIXEL
    errors = [_errors(line, *_both(stage, axis, first, second, blur)) for blur in _BLURS]
    error = min(errors, key=lambda error: error.min(axis=(1, 2)).sum())
    best = _best(error, spots)
    expected = np.stack([_steady(track, extent) for track in best])
    away = (spots - expected[..., None] + extent / 2) % extent - extent / 2  # [2, t, spots]
    pull = _PULL * np.minimum(np.abs(away), _FARTHEST_PULL) ** 2
    return _best(error + pull[0][:, :, None] + pull[1][:, None, :], spots) % extent


def _errors(line: np.ndarray, both: np.ndarray, power: np.ndarray) -> np.ndarray:
    """[t, spots, spots]: squared differences from templates, but for the square of the line."""
    return power - 2 * np.tensordot(line.astype(np.float32), both, (1, 2))


@functools.lru_cache(maxsize=36)
def _both(stage: Stage, axis: int, first: str, second: str, blur: float):
    """Two objects at any two spots of a line [spots, spots, extent], and the sum of its square."""
    spots = np.arange(_PER_PIXEL * stage.extent(axis)) / _PER_PIXEL
    a, b = (_templates(stage, axis, shape, spots, blur) for shape in (first, second))
    both = np.maximum(a[:, None], b[None]).astype(np.float32)
    return both, (both**2).sum(-1)


def _templates(stage: Stage, axis: int, shape: str, spots: np.ndarray, blur: float) -> np.ndarray:
    """[spots, extent]: an object at each spot of a line."""
    at = np.full((len(spots), 2), float(np.floor(stage.centre[1 - axis])))
    if len(stage.axes) == 1:
        at[:] = stage.centre[1 - axis]
    at[:, axis] = spots
    drawn = render(stage, [shape], at[None]) / 255
    return ndimage.gaussian_filter(drawn, (0, blur, blur), mode="wrap").max(axis=2 - axis)


def _best(error: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """[2, t]: where the error [t, spots, spots] is least, by a parabola through three spots."""
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
    """[t]: the motion of constant velocity on a torus that goes best with most positions [t]."""
    frames = np.arange(len(track))
    turns = np.linspace(-0.5, 0.5, 16 * len(track), endpoint=False)
    waves = np.exp(2j * np.pi * (track / extent - turns[:, None] * frames))
    sums = waves.sum(-1)
    best = np.abs(sums).argmax()
    return extent * (np.angle(sums[best]) / (2 * np.pi) + turns[best] * frames)
