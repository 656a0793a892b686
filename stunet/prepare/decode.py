"""Cuts one video file into clips of fixed length, rate and size, streaming with PyAV."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from stunet.errors import UserError

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# A file counts as truncated if its pictures end more than this share before its stated duration.
# Healthy files miss a frame or two, because containers round durations.
_MISSING_SHARE = 0.05


class CorruptVideo(UserError):
    """Raised if a file is not a video, holds no picture, or breaks off before its end."""


class ClipDecoder(Iterator[UInt8[np.ndarray, "t h w c"]]):
    """Iterates over the clips of one file; `decode_clips` makes it.

    Attributes:
        clips: number of clips given out so far.
        dropped_frames: frames after the last whole clip, at the requested rate. They are in no
            clip. The number is final when the iterator is exhausted.
    """

    def __init__(self, frames: Iterator[UInt8[np.ndarray, "h w c"]], length: int, stride: int):
        self.clips = 0
        self.dropped_frames = 0
        self._iterator = self._cut(frames, length, stride)

    def __next__(self) -> UInt8[np.ndarray, "t h w c"]:
        return next(self._iterator)

    def _cut(self, frames, length, stride):
        window: list[np.ndarray] = []
        skip = 0
        for frame in frames:
            if skip:
                skip -= 1
                continue
            window.append(frame)
            if len(window) == length:
                self.clips += 1
                yield np.stack(window)
                skip = max(0, stride - length)
                del window[:stride]
        overlap = max(0, length - stride) if self.clips else 0
        self.dropped_frames = len(window) - overlap


def decode_clips(
    path: str | Path,
    frames: int,
    fps: float | int,
    height: int,
    width: int,
    channels: int = 3,
    stride: int | None = None,
) -> ClipDecoder:
    """Decodes a video into clips and holds no more than one clip in memory.

    Time is resampled to `fps`. An output frame is the last source frame whose time rounds to the
    output frame's time, so frames are dropped or repeated, never blended. Each frame is shrunk by
    area averaging until it just covers height x width, then cropped at its centre. Non-square
    pixels and the rotation that phones note in the file are taken into account.

    A file that breaks off is detected if its format states the length. MPEG program streams and
    GIFs do not state it, so a truncated file of these formats gives the clips that it still holds.

    Args:
        path: a file that FFmpeg reads, such as mp4, webm, mpg, avi or gif.
        frames: frames in each clip.
        fps: frames per second of the clips.
        height: height of the clips in pixels.
        width: width of the clips in pixels.
        channels: 3 (RGB) or 1 (grey).
        stride: frames from the start of one clip to the start of the next; None means `frames`, so
            that clips do not overlap.

    Returns:
        An iterator of uint8 arrays [t, h, w, c]; see `ClipDecoder`.

    Raises:
        CorruptVideo: raised while iterating if the file cannot be read to its end. Clips given out
            before that come from the undamaged part.
        UserError: an argument is out of range, or, while iterating, there is no such file.
    """
    stride = frames if stride is None else stride
    for name, value in (("frames", frames), ("fps", fps), ("stride", stride)):
        if value <= 0:
            raise UserError(f"{name} must be positive, not {value}")
    if height <= 0 or width <= 0:
        raise UserError(f"height and width must be positive, not {height} and {width}")
    if channels not in (1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    return ClipDecoder(_frames(Path(path), fps, height, width, channels), frames, stride)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Returns (rows, columns) of a video's pictures as players show them.

    Players turn pictures by the noted rotation and show them with square pixels.

    Raises:
        CorruptVideo: the file cannot be read, or holds no picture.
        UserError: there is no such file.
    """
    with _opened(Path(path)) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise CorruptVideo(f"{path} holds no picture")
        size = frame.height, round(frame.height * _aspect(stream, frame))
        return size[::-1] if _quarter_turns(frame) % 2 else size


def _frames(path, fps, height, width, channels) -> Iterator[np.ndarray]:
    pixels = "gray" if channels == 1 else "rgb24"
    with _opened(path) as (container, stream):
        graph, end = None, None
        for frame in container.decode(stream):
            if graph is None:
                graph = _graph(stream, frame, fps, height, width, pixels)
            end = _end(frame, stream, end)
            graph.vpush(frame)
            yield from _drain(graph, channels)
        if graph is None:
            raise CorruptVideo(f"{path} holds no picture")
        _check_complete(path, container, stream, end)
        graph.vpush(None)
        yield from _drain(graph, channels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """Context manager that opens a file and its video stream, and translates FFmpeg's errors."""
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CorruptVideo(f"{path} has no video stream")
            stream = container.streams.video[0]
            # Other threads decode other files, so more threads in one decoder only compete.
            stream.thread_count = 1
            yield container, stream
    except av.error.FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise CorruptVideo(f"{path} cannot be decoded ({reason})") from error


def _aspect(stream, frame) -> float:
    """Returns width divided by height of a picture as it is stored, before it is turned."""
    return frame.width * float(stream.sample_aspect_ratio or 1) / frame.height


def _quarter_turns(frame) -> int:
    """Returns the noted rotation in quarter turns, 0 to 3, counter-clockwise."""
    return round(frame.rotation / 90) % 4


def _graph(stream, frame, fps, height, width, pixels) -> av.filter.Graph:
    """Builds the chain of filters: rate, rotation, covering size, centre crop, pixel format."""
    aspect = _aspect(stream, frame)
    # Frames are dropped first, so that later filters need not process them. Rounding times to the
    # nearest frame, not down, keeps every frame of formats with whole milliseconds (webm).
    rate = str(Fraction(fps).limit_denominator(10**6))
    chain = [("setpts", {"expr": "PTS-STARTPTS"}), ("fps", {"fps": rate, "round": "near"})]
    turns = _quarter_turns(frame)
    if turns % 2:
        aspect = 1 / aspect
        chain.append(("transpose", {"dir": "cclock" if turns == 1 else "clock"}))
    elif turns:
        chain += [("hflip", {}), ("vflip", {})]
    # The smallest size of this aspect that covers height x width.
    scaled_width = max(width, round(height * aspect))
    scaled_height = max(height, round(width / aspect))
    # Area averaging shrinks without aliasing, but would show blocks when it enlarges.
    shrinks = scaled_width * scaled_height <= frame.width * frame.height
    flags = ("area" if shrinks else "bicubic") + "+accurate_rnd+full_chroma_int"
    chain += [
        ("scale", {"w": str(scaled_width), "h": str(scaled_height), "flags": flags}),
        ("crop", {"w": str(width), "h": str(height), "exact": "1"}),
        ("format", {"pix_fmts": pixels}),
        ("buffersink", {}),
    ]
    graph = av.filter.Graph()
    graph.threads = 1
    node = graph.add_buffer(template=stream)
    for name, options in chain:
        next_node = graph.add(name, **options)
        node.link_to(next_node)
        node = next_node
    graph.configure()
    return graph


def _drain(graph, channels) -> Iterator[np.ndarray]:
    """Yields the frames that the filters have ready."""
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        array = frame.to_ndarray()
        yield array[..., None] if channels == 1 else array


def _end(frame, stream, previous) -> int | None:
    """Returns the end of the latest picture in the stream's time base.

    A frame without a timestamp gets the end of the previous one.
    """
    if frame.pts is None:
        frame.pts = previous if previous is not None else (stream.start_time or 0)
    length = frame.duration or int(1 / ((stream.guessed_rate or 25) * stream.time_base))
    end = frame.pts + length
    return end if previous is None else max(previous, end)


def _check_complete(path, container, stream, end):
    """Raises CorruptVideo if the pictures end well before the file's stated duration."""
    if stream.duration:
        promised = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        promised = container.duration / av.time_base
    else:
        return
    seen = float((end - (stream.start_time or 0)) * stream.time_base)
    if seen < (1 - _MISSING_SHARE) * promised:
        raise CorruptVideo(f"{path} breaks off after {seen:.1f} s of {promised:.1f} s")
