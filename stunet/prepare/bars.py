"""Finds black bars around pictures, which a film gets when it is shown in another shape."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange

from stunet.prepare import colour
from stunet.prepare.geometry import Window
from stunet.prepare.opening import opened
from stunet.prepare.places import Place
from stunet.prepare.stretches import Stretch

# Brightness, 0 to 255, that the mean and the brightest pixel of a black line have at most. Coding
# leaves some noise in bars.
_MEAN, _BRIGHTEST = 6, 40
# Bars of a film are equal on both sides, to this share of the picture. Dark ground seldom is.
_UNEVEN = Fraction(1, 100)
# Thinner bars than this share of the picture are left, both together.
_LEAST = Fraction(1, 50)
# Seconds from one picture that is looked at to the next.
_STEP = 1


def find_window(place: Place, stretch: Stretch) -> Window | None:
    """Returns what the black bars leave of a video's pictures, or None if there are none.

    Only pictures that are stored by themselves are decoded, at most one for each second. A line
    belongs to a bar if it is black in all of them.

    Args:
        place: place of the video.
        stretch: stretch of the video.

    Raises:
        CorruptVideo: the file cannot be opened.
        UserError: there is no such file.
    """
    rows = columns = None
    with opened(place) as (container, stream):
        for frame in _keyframes(container, stream, stretch):
            if colour.has_alpha(frame):
                return None
            grey = frame.to_ndarray(format="gray", dst_color_range=ColorRange.JPEG, threads=1)
            if rows is not None and grey.shape != (len(rows), len(columns)):
                return None
            black = [(grey.mean(axis) <= _MEAN) & (grey.max(axis) <= _BRIGHTEST) for axis in (1, 0)]
            rows, columns = black if rows is None else (rows & black[0], columns & black[1])
    if rows is None:
        return None
    (top, height), (left, width) = map(_inner, (rows, columns))
    found = Window((len(rows), len(columns)), top, left, height, width)
    return None if (height, width) == found.size else found


def _inner(black: np.ndarray) -> tuple[int, int]:
    """Returns the first line between two bars, and the number of lines, both even."""
    length = len(black)
    there = np.flatnonzero(~black)
    if not len(there):
        return 0, length
    before, after = int(there[0]), length - 1 - int(there[-1])
    if before + after < _LEAST * length or abs(before - after) > max(2, _UNEVEN * length):
        return 0, length
    # A line of colour stands for two lines in most formats.
    begin = before + before % 2
    return begin, (length - after - begin) // 2 * 2


def _keyframes(container, stream, stretch: Stretch) -> Iterator[av.VideoFrame]:
    """Yields pictures of a stretch that are stored by themselves. Damaged ones are left out."""
    first, base = stream.start_time or 0, stream.time_base
    if stretch.start:
        container.seek(first + int(Fraction(stretch.start) / base), stream=stream)
    stream.codec_context.skip_frame = "NONKEY"
    last = None
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            if stretch.end is not None and (time - first) * base >= stretch.end:
                break
            is_soon = last is not None and 0 <= (time - last) * base < _STEP
            if is_soon or not packet.is_keyframe:
                continue
            last = time
        with contextlib.suppress(av.FFmpegError):
            yield from packet.decode()
    with contextlib.suppress(av.FFmpegError):
        yield from stream.codec_context.decode(None)
