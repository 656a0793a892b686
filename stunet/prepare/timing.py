"""Resamples the pictures of a video to frames at a fixed rate."""

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
    """Holds a picture of a video and the time at which it is shown.

    Attributes:
        content: the picture, of any type.
        start: time at which the picture appears, in seconds.
        duration: seconds for which the picture is shown if no other picture follows.
    """

    content: Any
    start: Fraction
    duration: Fraction


@dataclasses.dataclass(frozen=True)
class Shown:
    """Holds a picture, and the number of frames (at least one) that show it after resampling."""

    content: Any
    times: int


@dataclasses.dataclass(frozen=True)
class Break:
    """Marks a place in a video that no clip may span. `reason` says why in words."""

    reason: str


def resample(pictures: Iterable[Picture], fps: float | int | Fraction) -> Iterator[Shown | Break]:
    """Repeats or drops pictures so that each second has `fps` frames; never blends pictures.

    Time is counted from the first picture. Frame k shows the last picture whose time, rounded to
    the nearest frame, is at most k / fps. Rounding down would lose frames of formats that store
    times in whole milliseconds (webm).

    A `Break` is yielded where timestamps go back, as in files joined by `cat`, and where a picture
    stays for more than `MAX_STILL` seconds. After a `Break`, time is counted from the next picture.
    """
    rate = Fraction(fps).limit_denominator(10**6)
    begin = Fraction(0)  # start of the first picture since the last break
    before: Picture | None = None
    count = 0  # frames since the last break

    def until(time: Fraction) -> Iterator[Shown]:
        """Yields the previous picture if any frame before `time` shows it."""
        nonlocal count
        end = math.floor((time - begin) * rate + Fraction(1, 2))
        if end > count:
            yield Shown(before.content, end - count)
            count = end

    def last() -> Iterator[Shown | Break]:
        """Yields the previous picture with the number of frames that its duration fills."""
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
    """Returns the reason why no clip may hold both pictures, or "" if a clip may hold both."""
    step = picture.start - before.start
    if step < 0:
        at = float(before.start + before.duration - begin)
        return f"its timestamps start again after {at:.2f} s"
    return _still(before, step, begin) if step > MAX_STILL else ""


def _still(picture: Picture, seconds: Fraction, begin: Fraction) -> str:
    at = float(picture.start - begin)
    return f"its picture at {at:.2f} s stays for {float(seconds):,.0f} s"
