"""Opens video files, which may be damaged or malicious, and decodes their pictures."""

import collections
import contextlib
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.stream import Disposition

from stunet.errors import UserError
from stunet.prepare.places import Member, Place, Section

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)

# FFmpeg's names of the formats that these suffixes stand for. Whatever a file is called, no other
# format is tried: some (ffconcat, playlists, image sequences) are scripts that open further files.
_FORMATS = "asf,avi,flv,gif,matroska,mov,mpeg,mpegts,mpegvideo,m4v,mxf,ogg"
# Formats that state no times of presentation. FFmpeg gives pictures the times at which they are to
# be decoded, in that order, which is another one with B-frames.
_WITHOUT_TIMES = ("avi",)
# The largest pictures that are decoded, in pixels: 8K (8192 x 4320) fits. A file of a few bytes can
# claim pictures of 65535 x 65535, which would take 17 GB of memory.
MAX_PIXELS = 36_000_000
# A file counts as truncated if its pictures end more than this share before its stated duration.
# Healthy files miss a frame or two, because containers round durations.
_MISSING_SHARE = 0.05
# Packets within which the clock goes back after one that the demuxer marks without need.
_LOOK_AHEAD = 3


class CorruptVideo(UserError):
    """Raised if a file is not a video, holds no picture, is damaged, or breaks off."""


def is_video(path: Path) -> bool:
    """Tells whether a file's name has the suffix of a video, and does not begin with a dot."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


@contextlib.contextmanager
def opened(
    path: Place,
) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Context manager that opens a file and its video stream, and replaces FFmpeg's exceptions.

    The cover picture of an audio file does not count as a video stream.

    Raises:
        CorruptVideo: the file has no video stream, or cannot be decoded for any reason.
        UserError: there is no such file.
    """
    file = path.archive if isinstance(path, Member) else path
    # Reading a pipe would wait for its writer.
    if file.exists() and not file.is_file():
        raise CorruptVideo(f"{path} is no regular file")
    try:
        with contextlib.ExitStack() as stack:
            content = stack.enter_context(Section(path)) if isinstance(path, Member) else None
            container = stack.enter_context(_open(path, content))
            yield container, _moving_stream(path, container)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except av.FFmpegError as error:
        # Also av.error.MemoryError, for damaged files that ask for more than there is.
        reason = error.strerror or type(error).__name__
        raise CorruptVideo(f"{path} cannot be decoded ({reason})") from error
    except MemoryError:
        raise
    except Exception as error:
        # One broken file among thousands must not end the whole run.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CorruptVideo(f"{path} cannot be decoded ({reason})") from error


def pictures(
    path: Place,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    begin: Fraction | None = None,
) -> Iterator[av.VideoFrame]:
    """Decodes the pictures of a stream from the present place of the file on.

    Every picture has a timestamp and a duration, in units of the stream's time base.

    Args:
        path: place of the video, for messages.
        container: the open file.
        stream: the video stream.
        begin: second of the file's clock before which damage does not matter, because those
            pictures are not shown. None checks that the whole file is there.

    Raises:
        CorruptVideo: the decoder marks a picture as damaged. If `begin` is None, also raised if the
            file holds no picture, or the pictures end well before the file's stated duration.
    """
    start = end = None
    ends: dict[int, Fraction] = {}
    for packet, following in _packets(container, stream, ends):
        is_before = begin is not None and packet.pts is not None
        is_before = is_before and (packet.pts + (packet.duration or 0)) * packet.time_base <= begin
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            # A recording of a broadcast begins between the pictures that others are based on.
            if is_before or (start is None and not packet.is_keyframe):
                continue
            raise _damaged(path, stream, end) from error
        # Where the clock starts again, as in streams joined by `cat`, the demuxer marks a packet
        # before that although it is whole.
        marked = packet.is_corrupt and not _starts_again(packet, following)
        if not is_before and (marked or any(frame.is_corrupt for frame in frames)):
            raise _damaged(path, stream, end)
        for frame in frames:
            if container.format.name in _WITHOUT_TIMES:
                frame.pts = frame.dts
            if frame.pts is None:
                frame.pts = end if end is not None else (stream.start_time or 0)
            if not frame.duration:
                frame.duration = int(1 / ((stream.guessed_rate or 25) * stream.time_base))
            start = frame.pts if start is None else start
            end = max(frame.pts + frame.duration, end or 0)
            yield frame
    if begin is not None:
        return
    if end is None:
        raise CorruptVideo(f"{path} holds no picture")
    _check_complete(path, container, stream, start, end, max(ends.values(), default=Fraction(0)))


def _packets(container, stream, ends: dict[int, Fraction]) -> Iterator[tuple[av.Packet, list]]:
    """Yields each packet of a stream, and a list of the stream's next few packets.

    Also writes into `ends` the second at which each other stream, such as the sound, ends. Some
    formats state only one duration for all streams together.
    """
    waiting: collections.deque[av.Packet] = collections.deque()
    for packet in container.demux():
        if packet.stream is stream:
            waiting.append(packet)
            if len(waiting) > _LOOK_AHEAD:
                yield waiting.popleft(), list(waiting)
        elif packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
    while waiting:
        yield waiting.popleft(), list(waiting)


def _starts_again(packet: av.Packet, following: list[av.Packet]) -> bool:
    """Tells whether the timestamps go back between a packet and the packets that follow it."""
    times = [p.dts for p in (packet, *following) if p.dts is not None]
    return any(later < earlier for earlier, later in itertools.pairwise(times))


def _damaged(path: Place, stream, end: int | None) -> CorruptVideo:
    seconds = float(((end or 0) - (stream.start_time or 0)) * stream.time_base)
    return CorruptVideo(
        f"{path} is damaged: the decoder refuses its picture at about {max(seconds, 0):.2f} s"
    )


def _open(path: Place, content: Section | None) -> av.container.InputContainer:
    """Opens a file, or the content of a member of a tar file."""
    options = {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": "file",
        "max_pixels": str(MAX_PIXELS),
    }
    if content is None:
        with path.open("rb") as file:
            _check_riff(path, file)
    else:
        _check_riff(path, content)
        content.seek(0)
    try:
        # Without `file:`, a name with a colon would be taken for a protocol. Tags that are not
        # UTF-8 are common, and nothing reads them.
        return av.open(content or f"file:{path}", options=options, metadata_errors="replace")
    except av.error.ArgumentError:
        raise CorruptVideo(
            f"{path} cannot be decoded (its content is none of the formats {_FORMATS})"
        ) from None


def _check_riff(path: Place, file: BinaryIO) -> None:
    """Raises CorruptVideo if an AVI file is shorter than the length that it states.

    FFmpeg does not report such files. The lengths 0 and 2^32 - 1 stand for an unknown length.
    """
    name, length = file.read(4), int.from_bytes(file.read(4), "little")
    size = file.seek(0, 2)
    if name == b"RIFF" and size < length + 8 < 2**32:
        raise CorruptVideo(f"{path} breaks off: it has {size:,} of {length + 8:,} bytes")


def _moving_stream(path: Place, container):
    """Returns the video stream to decode, with a decoder that reports damage."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise CorruptVideo(f"{path} has no video stream")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    # Other threads decode other files, so more threads in one decoder only compete.
    stream.thread_count = 1
    # By default decoders hide what they cannot decode. "explode" makes an error of it, and
    # "crccheck" compares the checksums that a few formats have.
    stream.codec_context.options = {
        "err_detect": "crccheck+explode",
        "max_pixels": str(MAX_PIXELS),
    }
    return stream


def _check_complete(path, container, stream, start, end, latest):
    """Raises CorruptVideo if the pictures end well before the file's stated duration."""
    # Packets before the first picture, which are based on pictures that are not there, count too.
    start = start if stream.start_time is None else min(start, stream.start_time)
    first, last = start * stream.time_base, end * stream.time_base
    if stream.duration:
        promised = stream.duration * stream.time_base
        seen = last - first
    elif container.duration:
        promised = Fraction(container.duration, av.time_base)
        # Matroska files that were cut out of longer ones state the time at which they end.
        seen = max(last, latest) - (first if first >= promised else 0)
    else:
        return
    if seen < (1 - Fraction(_MISSING_SHARE)) * promised:
        seconds = float(last - first)
        raise CorruptVideo(f"{path} breaks off after {seconds:.1f} s of {float(promised):.1f} s")
