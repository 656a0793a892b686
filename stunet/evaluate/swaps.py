"""Counts how often two objects that cross exchange their looks, or each other's paths.

Two objects that meet hide each other. Each should go on along its own path afterwards. A swap is
what multi-object tracking calls an identity switch (Bernardin and Stiefelhagen, "Evaluating
multiple object tracking performance", 2008): a path goes on, and another object follows it.
"""

import itertools

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from stunet.data.synthetic.stage import Stage
from stunet.evaluate.tracking import Positions

# Positions are trusted in frames where objects are this many diameters apart, or more. In drawn
# clips, they are then right to 0.07 pixels.
_APART = 0.75
# A path is assumed to go on with the mean of its last steps, of which there are this many.
_STEPS = 2


def identity_swaps(positions: Positions, stage: Stage) -> Float[np.ndarray, " n"]:
    """Counts the swaps in each clip of two objects.

    Each path is followed without regard to which object is on it. From its last two steps follows
    where it should be in the next frame in which the objects are apart. A swap is counted if the
    objects are nearer to each other's expected positions than to their own. So the disc that goes
    on with the ring's motion after they met counts. So does the disc that becomes a ring while the
    ring becomes a disc. Objects that both turn back while they are apart are no swap. Nor is an
    exchange that is undone in the next frame: on a single row, a dot beside a ring may look like a
    ring beside a dot.

    Args:
        positions: positions of the objects, each found by its looks.
        stage: canvas and motion of the clips.

    Returns:
        The count. NaN stands for a clip whose objects are apart in fewer than three frames.
    """
    extents = np.array([stage.height, stage.width])

    def offset(a, b):
        return (a - b + extents / 2) % extents - extents / 2

    def far(a, b):
        return np.linalg.norm(offset(a, b), axis=-1).sum()

    counts = np.full(len(positions), np.nan)
    for i, clip in enumerate(positions.swapaxes(1, 2)):  # [t, o, 2]
        distance = np.linalg.norm(offset(clip[:, 0], clip[:, 1]), axis=-1)
        frames = np.flatnonzero(distance >= _APART * stage.size)
        if len(frames) < 3:
            continue
        on_path, steps, exchanged = [clip[frames[0]]], [], [False]
        for before, frame in itertools.pairwise(frames):
            found, swapped = clip[frame], False
            if steps:
                expected = on_path[-1] + (frame - before) * np.mean(steps[-_STEPS:], 0)
                swapped = far(found[::-1], expected) < far(found, expected)
            found = found[::-1] if swapped else found
            if frame == before + 1:
                steps.append(offset(found, on_path[-1]))
            on_path.append(found)
            exchanged.append(swapped)
        # Drops what lasts for a single frame.
        lasting = ndimage.median_filter(np.array(exchanged), 3, mode="mirror")
        counts[i] = np.abs(np.diff(lasting.astype(int))).sum()
    return counts
