"""Finds cuts: places where one picture has little to do with the one before."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from stunet.prepare.looks import Seen
from stunet.prepare.timing import Break

# Changes on either side that a cut is compared with.
_NEIGHBOURS = 3


@dataclasses.dataclass(frozen=True)
class Cut:
    """Marks a cut between the pictures before and after it."""


def with_cuts(entries: Iterable[Seen | Break], threshold: float) -> Iterator[Seen | Break | Cut]:
    """Yields the entries of `stunet.prepare.looks.seen`, and a `Cut` at each cut.

    There is a cut where the change of brightness from one picture to the next is larger by
    `threshold` than each of the three changes before and after. So neither fast motion, which
    changes many pictures, nor animation that shows each picture twice has cuts.

    Args:
        entries: pictures and breaks.
        threshold: how much larger a change at a cut is; 0 looks for no cuts.
    """
    if not threshold:
        yield from entries
        return
    waiting: collections.deque[Seen] = collections.deque()
    past: collections.deque[float] = collections.deque(maxlen=_NEIGHBOURS)

    def release() -> Iterator[Seen | Cut]:
        entry = waiting.popleft()
        following = (later.look.change for later in itertools.islice(waiting, _NEIGHBOURS))
        if entry.look.change - max([*past, *following, 0.0]) > threshold:
            yield Cut()
        past.append(entry.look.change)
        yield entry

    for entry in entries:
        if isinstance(entry, Break):
            while waiting:
                yield from release()
            past.clear()
            yield entry
            continue
        waiting.append(entry)
        if len(waiting) > _NEIGHBOURS:
            yield from release()
    while waiting:
        yield from release()
