"""Computes large frames in overlapping tiles, which bounds the memory that a frame takes.

The tiles and their blending are those of diffusers' `AutoencoderKL`: neighbours overlap by a
quarter of a tile, and are mixed with weights that are linear over the overlap. Attention and group
norms see one tile at a time, so the result is near that of the whole frame, and not equal to it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from stunet.errors import UserError


def check(tile: int, factor: int) -> None:
    """Checks that a quarter of a tile is whole latents.

    Args:
        tile: rows and columns of a tile of a frame.
        factor: rows or columns of a frame for each of the latents.

    Raises:
        UserError: it is not.
    """
    if tile < 1 or tile % (4 * factor):
        raise UserError(f"the tile is {tile}; it must be a multiple of {4 * factor}, such as 512")


def in_tiles(
    compute: Callable[[np.ndarray], np.ndarray],
    frames: Float32[np.ndarray, "n h w c"],
    size: int,
    out_size: int,
) -> Float32[np.ndarray, "n y x z"]:
    """Returns `compute(frames)`, put together from tiles.

    Args:
        compute: from a tile of all frames to its output.
        frames: frames, or latents.
        size: rows and columns of a tile, a multiple of 4. Tiles at the lower and right edge may be
            smaller.
        out_size: rows and columns of the output for a tile, a multiple of 4.
    """
    step, blend = size * 3 // 4, out_size // 4
    keep = out_size - blend
    rows: list[np.ndarray] = []
    above: list[np.ndarray] = []
    for top in range(0, frames.shape[1], step):
        row: list[np.ndarray] = []
        for left in range(0, frames.shape[2], step):
            tile = compute(frames[:, top : top + size, left : left + size])
            if above:
                tile = _blended(above[len(row)], tile, blend, axis=1)
            if row:
                tile = _blended(row[-1], tile, blend, axis=2)
            row.append(tile)
        rows.append(np.concatenate([tile[:, :keep, :keep] for tile in row], axis=2))
        above = row
    return np.concatenate(rows, axis=1)


def _blended(before: np.ndarray, after: np.ndarray, extent: int, axis: int) -> np.ndarray:
    """Returns `after`, whose first `extent` positions pass over from the last ones of `before`."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    last, (first, rest) = np.split(before, [-extent], axis)[1], np.split(after, [extent], axis)
    weight = np.arange(extent, dtype=np.float32) / np.float32(extent)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
    return np.concatenate([last * (1 - weight) + first * weight, rest], axis)
