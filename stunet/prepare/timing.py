"""Chooses the pictures of a video that clips of a fixed rate show."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

# A picture that stays for longer is no data: seconds after which a clip ends. Recordings of still
# screens change less often than films, and broken timestamps jump by minutes and more.
MAX_STILL = 10


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture and when it is shown.

    Attributes:
        content: the picture, of any type.
        start: time at which it appears, in seconds.
        duration: seconds for which it is shown unless another one follows.
    """

    content: Any
    start: Fraction
    duration: Fraction


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture and how many frames of the clips show it, at least one."""

    content: Any
    times: int


@dataclasses.dataclass(frozen=True)
class Break:
    """A place in the video that no clip may span, with the reason in words."""

    reason: str


def resample(pictures: Iterable[Picture], fps: float | int | Fraction) -> Iterator[Shown | Break]:
    """Repeats or drops pictures so that there are `fps` in each second; none are blended.

    Frame k is the last picture whose time rounds to k / fps, counted from the first picture.
    Rounding to the nearest frame, not down, keeps every frame of formats with whole milliseconds
    (webm).

    After a `Break`, time starts again. There is one where timestamps go back, as in files joined by
    `cat`, and one where a picture stays for more than `MAX_STILL` seconds.
    """
    rate = Fraction(fps).limit_denominator(10**6)
    begin = Fraction(0)  # start of the first picture since the last break
    before: Picture | None = None
    count = 0  # frames since the last break

    def until(time: Fraction) -> Iterator[Shown]:
        """Yields the previous picture, if it fills any frame that starts before `time`."""
        nonlocal count
        end = math.floor((time - begin) * rate + Fraction(1, 2))
        if end > count:
            yield Shown(before.content, end - count)
            count = end

    def last() -> Iterator[Shown | Break]:
        """Yields the previous picture for its own duration."""
        yield from until(before.start + min(before.duration, MAX_STILL))

    for picture in pictures:
        if before is None:
            begin = picture.start
        else:
            reason = _break_between(before, picture, begin)
            if reason:
                yield from last()
                yield Break(reason)
                begin, count = picture.start, 0
            else:
                yield from until(picture.start)
        before = picture
    if before is not None:
        yield from last()
        if before.duration > MAX_STILL:
            yield Break(_still(before, before.duration, begin))


def _break_between(before: Picture, picture: Picture, begin: Fraction) -> str:
    """Returns why no clip may hold both pictures, or ""."""
    step = picture.start - before.start
    if step < 0:
        at = float(before.start + before.duration - begin)
        return f"its timestamps start again after {at:.2f} s"
    return _still(before, step, begin) if step > MAX_STILL else ""


def _still(picture: Picture, seconds: Fraction, begin: Fraction) -> str:
    at = float(picture.start - begin)
    return f"its picture at {at:.2f} s stays for {float(seconds):,.0f} s"
