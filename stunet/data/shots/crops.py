"""Says which part of a picture of any shape becomes a picture of a clip's shape."""

import numpy as np
from jaxtyping import Float, Int

from stunet.data.draws import pick
from stunet.data.shots.codecs import Box


def crop(height: int, width: int, rows: int, columns: int, word: int | None = None) -> Box:
    """Returns the largest part of a picture that has the shape rows x columns, in even numbers.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        rows: rows of a clip.
        columns: columns of a clip.
        word: random word of 64 bits that chooses the place; None takes the centre.
    """
    scale = min(height / rows, width / columns)
    tall, wide = (max(2, 2 * round(side * scale / 2)) for side in (rows, columns))
    spare = height - tall, width - wide
    if word is None:
        top, left = (extra // 4 * 2 for extra in spare)
    else:
        # Only one side is longer than the part that is cut out.
        top, left = (2 * pick(word, 0, extra // 2 + 1) for extra in spare)
    return Box(top, left, tall, wide)


def share_cut_off(
    heights: Int[np.ndarray, "n"], widths: Int[np.ndarray, "n"], rows: int, columns: int
) -> Float[np.ndarray, "n"]:
    """Returns the share of pictures of some sizes that is cut off to get the shape rows x columns.

    Sizes are even numbers, so a loss that is due to rounding alone counts as none.
    """
    scales = np.minimum(heights / rows, widths / columns)
    lost = 1 - rows * scales * columns * scales / (heights * widths)
    rounding = 2 / np.minimum(heights, widths)
    return np.where(lost <= rounding, 0.0, lost)
