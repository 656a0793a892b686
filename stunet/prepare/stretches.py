"""Decodes a stretch of a video, from one second to another."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

import av

from stunet.prepare.opening import CorruptVideo, pictures
from stunet.prepare.places import Place
from stunet.prepare.timing import Picture

# Seconds at the beginning of a video that are decoded rather than skipped.
_SEEK_FROM = 5
# Seconds that may be missing before the end of a stretch, because files round their durations.
_MISSING = Fraction(1, 2)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Names a part of a video, in seconds from its beginning. None leaves an end open."""

    start: float | None = None
    end: float | None = None


WHOLE = Stretch()


def shown_in(
    path: Place,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    stretch: Stretch,
) -> Iterator[Picture]:
    """Yields the pictures that are shown in a stretch of a video, clipped to it.

    Args:
        path: place of the video, for messages.
        container: the open file.
        stream: the video stream.
        stretch: the stretch.

    Raises:
        CorruptVideo: a picture is damaged, or the stretch or the file ends early.
    """
    base = stream.time_base
    if stretch == WHOLE:
        for frame in pictures(path, container, stream):
            yield Picture(frame, frame.pts * base, frame.duration * base)
        return
    first = (stream.start_time or 0) * base
    begin = first + Fraction(stretch.start or 0)
    end = None if stretch.end is None else first + Fraction(stretch.end)
    before, last = None, begin
    for frame in _from(path, container, stream, begin, first):
        picture = Picture(frame, frame.pts * base, frame.duration * base)
        if end is not None and picture.start >= end:
            last = end
            break
        # A picture stays until the next one, so the last one before `begin` is shown too.
        if picture.start <= begin:
            before = picture
            continue
        if before is not None:
            yield _clipped(before, begin, end)
            before = None
        last = picture.start + picture.duration
        yield _clipped(picture, begin, end)
    if before is not None and before.start + before.duration > begin:
        last = before.start + before.duration
        yield _clipped(before, begin, end)
    duration = _stated(container, stream)
    promised = [time for time in (end, duration and first + duration) if time is not None]
    if last == begin or (promised and last < min(promised) - _MISSING):
        at = float(last - first)
        raise CorruptVideo(f"{path} has no picture from {at:g} s on, where the stretch goes on")


def _from(path: Place, container, stream, begin: Fraction, first: Fraction):
    """Decodes the pictures from a keyframe before `begin` on, or from the first one."""
    if begin - first > _SEEK_FROM:
        container.seek(int(begin / stream.time_base), stream=stream)
        decoded = pictures(path, container, stream, begin)
        frame = next(decoded, None)
        if frame is not None and frame.pts * stream.time_base <= begin:
            yield frame
            yield from decoded
            return
        # A format without an index may lead to a later place.
        container.seek(stream.start_time or 0, stream=stream)
    yield from pictures(path, container, stream, begin)


def _stated(container, stream) -> Fraction | None:
    """Returns the duration that a file states, in seconds."""
    if stream.duration:
        return stream.duration * stream.time_base
    return Fraction(container.duration, av.time_base) if container.duration else None


def _clipped(picture: Picture, begin: Fraction, end: Fraction | None) -> Picture:
    """Returns a picture that is shown only between two times."""
    start, stop = max(picture.start, begin), picture.start + picture.duration
    stop = stop if end is None else min(stop, end)
    return Picture(picture.content, start, max(stop - start, Fraction(0)))
