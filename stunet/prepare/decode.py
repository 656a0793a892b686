"""Cuts a video file into clips of fixed length, rate and size (PyAV only, streaming)."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from stunet.errors import UserError

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")

# A file whose pictures end this early is taken for truncated. Healthy files miss a frame or two:
# containers round durations.
_MISSING_SHARE = 0.05


class CorruptVideo(UserError):
    """A file that is no video, holds no picture, or breaks off before its end."""


class ClipDecoder(Iterator[UInt8[np.ndarray, "t h w c"]]):
    """Iterator over the clips of one file; made by `decode_clips`.

    Attributes, final once the iterator is exhausted:
      clips: clips given out so far.
      dropped_frames: frames (at the asked rate) after the last whole clip, which are in no clip.
    """

    def __init__(self, frames: Iterator[UInt8[np.ndarray, "h w c"]], length: int, stride: int):
        self.clips = 0
        self.dropped_frames = 0
        self._iterator = self._cut(frames, length, stride)

    def __next__(self) -> UInt8[np.ndarray, "t h w c"]:
        return next(self._iterator)

    def _cut(self, frames, length, stride):
        held: list[np.ndarray] = []
        skip = 0
        for frame in frames:
            if skip:
                skip -= 1
                continue
            held.append(frame)
            if len(held) == length:
                self.clips += 1
                yield np.stack(held)
                skip = max(0, stride - length)
                del held[:stride]
        used = max(0, length - stride) if self.clips else 0
        self.dropped_frames = len(held) - used


def decode_clips(
    path: str | Path,
    frames: int,
    fps: float | int,
    height: int,
    width: int,
    channels: int = 3,
    stride: int | None = None,
) -> ClipDecoder:
    """Decodes a video into clips, holding no more than one clip at a time.

    Time is resampled to `fps`: an output frame is the last source frame whose time rounds to its
    own, so frames are dropped or repeated, never blended. Each is shrunk by area averaging until it
    just covers height x width, then cropped at its centre; non-square pixels and the rotation that
    telephones note in the file are honoured.

    A file that breaks off is noticed where the format tells its length; MPEG program streams and
    GIFs do not, so these give the clips that are left.

    Args:
      path: a file that FFmpeg reads (mp4, webm, mpg, avi, gif, ...).
      frames: frames per clip.
      fps: frames per second of the clips.
      height: of the clips, in pixels.
      width: of the clips, in pixels.
      channels: 3 (RGB) or 1 (grey).
      stride: frames from one clip's start to the next one's; `frames` by default, so that clips
        do not overlap.

    Returns:
      An iterator of uint8 arrays [t, h, w, c]; see `ClipDecoder`.

    Raises:
      CorruptVideo: while iterating, if the file cannot be read to its end. Clips given out before
        that came from the undamaged part.
      UserError: if an argument is out of range.
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
    """Rows and columns of a video's pictures as players show them: turned, with square pixels.

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
    """A file and its video stream; within, what FFmpeg raises is told as `decode_clips` says."""
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise CorruptVideo(f"{path} has no video stream")
            stream = container.streams.video[0]
            # Files are spread over workers, so threads inside one decoder only get in the way.
            stream.thread_count = 1
            yield container, stream
    except av.error.FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        raise CorruptVideo(f"{path} cannot be decoded ({reason})") from error


def _aspect(stream, frame) -> float:
    """Width by height of a picture as it is stored, before it is turned."""
    return frame.width * float(stream.sample_aspect_ratio or 1) / frame.height


def _quarter_turns(frame) -> int:
    return round(frame.rotation / 90) % 4


def _graph(stream, frame, fps, height, width, pixels) -> av.filter.Graph:
    """The chain of filters: rate, rotation, covering size, centre crop, pixel format."""
    aspect = _aspect(stream, frame)
    # Frames are dropped first: what follows then costs nothing for them. Rounding to the nearest
    # instant, not down, keeps every frame where timestamps are whole milliseconds (webm).
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
    # Area averaging does not alias; enlarging by it would show blocks.
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
        following = graph.add(name, **options)
        node.link_to(following)
        node = following
    graph.configure()
    return graph


def _drain(graph, channels) -> Iterator[np.ndarray]:
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        array = frame.to_ndarray()
        yield array[..., None] if channels == 1 else array


def _end(frame, stream, previous) -> int | None:
    """The end of the latest picture, in the stream's time base; mends a missing timestamp."""
    if frame.pts is None:
        frame.pts = previous if previous is not None else (stream.start_time or 0)
    length = frame.duration or int(1 / ((stream.guessed_rate or 25) * stream.time_base))
    end = frame.pts + length
    return end if previous is None else max(previous, end)


def _check_complete(path, container, stream, end):
    """Raises CorruptVideo if the pictures end well before the file says that they do."""
    if stream.duration:
        promised = float(stream.duration * stream.time_base)
    elif container.duration and len(container.streams) == 1:
        promised = container.duration / av.time_base
    else:
        return
    seen = float((end - (stream.start_time or 0)) * stream.time_base)
    if seen < (1 - _MISSING_SHARE) * promised:
        raise CorruptVideo(f"{path} breaks off after {seen:.1f} s of {promised:.1f} s")
