"""Finds cuts: places where one picture has little to do with the one before."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from stunet.prepare.timing import Break

# Changes on either side that a cut is compared with.
_NEIGHBOURS = 3
# Rows or columns, whichever are fewer, to which pictures are shrunk at most.
_SIDE = 64


@dataclasses.dataclass(frozen=True)
class Cut:
    """Marks a cut between the pictures before and after it."""


def with_cuts(
    entries: Iterable[tuple[np.ndarray, int] | Break], threshold: float
) -> Iterator[tuple[np.ndarray, int] | Break | Cut]:
    """Yields the entries of `stunet.prepare.decode.resampled`, and a `Cut` at each cut.

    The change from one picture to the next is the mean absolute difference of their brightness, 0
    to 255. There is a cut where the change is larger by `threshold` than each of the three changes
    before and after. So neither fast motion, which changes many pictures, nor animation that shows
    each picture twice has cuts.

    Args:
        entries: pictures and breaks.
        threshold: how much larger a change at a cut is; 0 looks for no cuts.
    """
    if not threshold:
        yield from entries
        return
    waiting: collections.deque = collections.deque()  # pictures, each with the change before it
    past: collections.deque[float] = collections.deque(maxlen=_NEIGHBOURS)
    thumbnail = None

    def release() -> Iterator[tuple[np.ndarray, int] | Cut]:
        entry, change = waiting.popleft()
        following = (later for _, later in itertools.islice(waiting, _NEIGHBOURS))
        if change - max([*past, *following, 0.0]) > threshold:
            yield Cut()
        past.append(change)
        yield entry

    for entry in entries:
        if isinstance(entry, Break):
            while waiting:
                yield from release()
            past.clear()
            thumbnail = None
            yield entry
            continue
        before, thumbnail = thumbnail, _thumbnail(entry[0])
        is_comparable = before is not None and before.shape == thumbnail.shape
        waiting.append((entry, float(np.abs(thumbnail - before).mean()) if is_comparable else 0.0))
        if len(waiting) > _NEIGHBOURS:
            yield from release()
    while waiting:
        yield from release()


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    """Returns the brightness of a picture, shrunk by averaging."""
    grey = Image.fromarray(picture).convert("L")
    return np.asarray(grey.reduce(max(1, min(grey.size) // _SIDE)), np.int16)
