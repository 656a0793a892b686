"""Cuts one video file into clips of fixed length, rate and size, streaming with PyAV."""

import functools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stunet.errors import UserError
from stunet.prepare import colour, geometry
from stunet.prepare.kinds import is_picture
from stunet.prepare.opening import MAX_PIXELS, CorruptVideo, opened, pictures
from stunet.prepare.pictures import read as read_picture
from stunet.prepare.places import Place
from stunet.prepare.stretches import WHOLE, Stretch, shown_in
from stunet.prepare.timing import Break, resample

# No camera of films takes more, and a picture that stays for seconds would fill a disk.
_MAX_FPS = 1000
# Share of repeated frames from which on it is said that a video has fewer pictures than the clips.
_MANY_REPEATED = 0.01


class ClipDecoder(Iterator[UInt8[np.ndarray, "t h w c"]]):
    """Iterates over the clips of one video file. Call `decode_clips` to make one.

    No clip spans a break, which is a place where timestamps go back or a picture stays too long.

    Attributes:
        clips: number of clips yielded so far.
        dropped_frames: number of frames, at the requested rate, that are in no clip. Such frames
            remain before a break or before the end of the file, and are too few for a clip. The
            number is final when the iterator is exhausted.
        breaks: for each break, a sentence that says why no clip spans it.
        frames: number of frames so far, at the requested rate.
        repeated: number of frames so far that show the same picture as the frame before.
    """

    def __init__(
        self,
        frames: Iterator[tuple[UInt8[np.ndarray, "h w c"], int] | Break],
        length: int,
        stride: int,
    ):
        self.clips = 0
        self.dropped_frames = 0
        self.breaks: list[str] = []
        self.frames = 0
        self.repeated = 0
        self._length, self._stride = length, stride
        self._iterator = self._cut(frames)

    def __next__(self) -> UInt8[np.ndarray, "t h w c"]:
        return next(self._iterator)

    def notes(self) -> list[str]:
        """Returns notes for the user about the frames so far.

        Each note is a sentence without its subject, which is the name of the video, such as "has
        fewer pictures than ...".
        """
        reasons = [f"{reason} (no clip spans that place)" for reason in self.breaks]
        return [*reasons, *what_repeats(self.repeated, self.frames, "clips")]

    def _cut(self, frames):
        window: list[np.ndarray] = []
        clips = skip = 0  # clips since the last break; frames to leave out before the next clip

        def end() -> None:
            # Frames that the last clip shares with a next one are not dropped.
            overlap = max(0, self._length - self._stride) if clips else 0
            self.dropped_frames += len(window) - overlap

        for entry in frames:
            if isinstance(entry, Break):
                self.breaks.append(entry.reason)
                end()
                window, clips, skip = [], 0, 0
                continue
            frame, times = entry
            self.frames += times
            self.repeated += times - 1
            for _ in range(times):
                if skip:
                    skip -= 1
                    continue
                window.append(frame)
                if len(window) == self._length:
                    clips += 1
                    self.clips += 1
                    yield np.stack(window)
                    skip = max(0, self._stride - self._length)
                    del window[: self._stride]
        end()


def what_repeats(repeated: int, frames: int, what: str) -> list[str]:
    """Returns a note about a video many of whose frames show the same picture as the one before.

    Args:
        repeated: number of such frames.
        frames: number of all frames.
        what: what the frames are part of, "clips" or "shots".
    """
    if repeated <= _MANY_REPEATED * frames:
        return []
    return [
        f"has fewer pictures than the {what}: {repeated} of {frames} frames repeat the one before"
    ]


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

    Time is resampled to `fps` (`timing.resample`): frames are dropped or repeated, never blended.
    No clip spans a place where timestamps go back, or a picture that stays for over 10 seconds.

    Each frame is shrunk by area averaging until it just covers height x width, then cropped at its
    centre. Non-square pixels are taken into account, and so is the rotation or mirroring that
    phones note in the file. High dynamic range (HLG, PQ) and wide colours are mapped to ordinary
    colours, and a white background shows through transparent pixels.

    A file that breaks off is detected if its format states the length. MPEG program streams and
    GIFs state no length, so a truncated file of these formats yields the clips that it still holds.
    Only damage that the decoder reports is detected. Decoders report most damage in H.264, MPEG-2
    and MPEG-4. They report little in VP9, HEVC and GIF, where nearly any bytes give some picture.

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
        CorruptVideo: raised while iterating if the file is damaged or cannot be read to its end.
            Clips that were yielded before the error come from the undamaged part.
        UserError: an argument is out of range, or, while iterating, there is no such file.
    """
    stride = frames if stride is None else stride
    for name, value in (("frames", frames), ("fps", fps), ("stride", stride)):
        if not 0 < value < math.inf:
            raise UserError(f"{name} must be positive and finite, not {value}")
    if fps > _MAX_FPS:
        raise UserError(f"fps is {fps:g}; at most {_MAX_FPS} frames per second are made")
    if height <= 0 or width <= 0:
        raise UserError(f"height and width must be positive, not {height} and {width}")
    if channels not in (1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {channels}")
    fit = functools.partial(geometry.covering, height, width)
    return ClipDecoder(resampled(Path(path), fps, channels, fit), frames, stride)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Returns (rows, columns) of a video's pictures as players show them.

    Players turn pictures by the rotation that the file notes and show them with square pixels.

    Raises:
        CorruptVideo: the file cannot be read, or holds no picture.
        UserError: there is no such file.
    """
    with opened(Path(path)) as (container, stream):
        frame = next(pictures(Path(path), container, stream))
        return _shown_size(Path(path), frame, geometry.pixel_aspect(container, stream))


def shown_extent(path: str | Path) -> tuple[int, int, int, Fraction]:
    """Returns (pictures, rows, columns, seconds) of a whole video, as players show it.

    Raises:
        CorruptVideo: the file cannot be read to its end, or holds no picture.
        UserError: there is no such file.
    """
    path, count, seconds, size = Path(path), 0, Fraction(0), None
    with opened(path) as (container, stream):
        for frame in pictures(path, container, stream):
            if size is None:
                size = _shown_size(path, frame, geometry.pixel_aspect(container, stream))
                first = frame.pts
            count += 1
            seconds = (frame.pts + frame.duration - first) * stream.time_base
    return count, *size, seconds


def _shown_size(path: Path, frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    signs = _orientation(path, frame)
    return geometry.shown_size(geometry.Stored(frame.height, frame.width, aspect, signs))


def _orientation(path: Path, frame: av.VideoFrame) -> geometry.Orientation:
    """Returns how a picture is turned.

    Raises:
        CorruptVideo: the picture cannot be turned upright, or cannot be converted to RGB.
    """
    try:
        colour.check_matrix(frame)
        return geometry.orientation(frame)
    except UserError as error:
        raise CorruptVideo(f"{path} cannot be used: {error}") from error


def resampled(
    path: Place,
    fps: float | int,
    channels: int,
    fit: Callable[[geometry.Stored], geometry.Fit],
    stretch: Stretch = WHOLE,
    window: geometry.Window | None = None,
) -> Iterator[tuple[UInt8[np.ndarray, "h w c"], int] | Break]:
    """Yields each picture of a video with the number of frames that show it, or a `Break`.

    A `Break` stands at each place that no clip may span. `decode_clips` says how pictures are
    treated. A picture file (`stunet.prepare.pictures`) is a video of one frame.

    Args:
        path: place of the video.
        fps: frames per second to which the video is resampled.
        channels: 3 (RGB) or 1 (grey).
        fit: maps a picture as it is stored to the size that it gets.
        stretch: stretch of the video to decode.
        window: part of the pictures to keep; None keeps them whole.

    Raises:
        CorruptVideo: the file is damaged or cannot be read to its end.
        UserError: there is no such file.
    """
    if is_picture(path):
        yield _fitted_picture(path, channels, fit), 1
        return
    with opened(path) as (container, stream):
        aspect = geometry.pixel_aspect(container, stream)
        decoded = shown_in(path, container, stream, stretch)
        graph = look = fitted = None
        for shown in resample(decoded, fps):
            if isinstance(shown, Break):
                yield shown
                continue
            signs = _orientation(path, shown.content)
            frame = _opaque(shown.content)
            pixels = (
                "gbrp16le" if colour.is_special(frame) else "gray" if channels == 1 else "rgb24"
            )
            now = (frame.width, frame.height, frame.format.name, signs, pixels)
            now += (*colour.matrix_options(frame),)
            if now != look:  # the first picture, or one where the file changes its format
                look, size = now, (frame.height, frame.width)
                part = window if window and window.size == size else geometry.whole(*size)
                fitted = fit(geometry.Stored(part.height, part.width, aspect, signs))
                graph = _graph(frame, part, signs, fitted, pixels)
            array = _pulled(graph, frame)
            if pixels == "gbrp16le":
                array = colour.ordinary(array, frame.color_trc, frame.color_primaries)
                array = colour.to_grey(array) if channels == 1 else array
            yield array.reshape(fitted.height, fitted.width, channels), shown.times


def _fitted_picture(
    place: Place, channels: int, fit: Callable[[geometry.Stored], geometry.Fit]
) -> UInt8[np.ndarray, "h w c"]:
    """Reads a picture file, and gives it the size that `fit` says.

    Raises:
        CorruptVideo: the file is no picture, is damaged, or has too many pixels.
    """

    def check_size(picture: Image.Image) -> None:
        if math.prod(picture.size) > MAX_PIXELS:
            raise UserError(f"{place} has more than {MAX_PIXELS:,} pixels")

    try:
        pixels = read_picture(place, check_size)
    except UserError as error:
        raise CorruptVideo(str(error)) from error
    rows, columns = pixels.shape[:2]
    fitted = fit(geometry.Stored(rows, columns, 1.0, geometry.UPRIGHT))
    size = fitted.columns, fitted.rows
    # As for videos: area averaging shrinks without aliasing, but would show blocks if it enlarged.
    kind = Image.Resampling.BOX if math.prod(size) <= rows * columns else Image.Resampling.BICUBIC
    scaled = np.asarray(Image.fromarray(pixels).resize(size, kind))
    top, left = (fitted.rows - fitted.height) // 2, (fitted.columns - fitted.width) // 2
    kept = scaled[top : top + fitted.height, left : left + fitted.width]
    return kept if channels == 3 else colour.to_grey(kept)[..., None]


def _opaque(frame: av.VideoFrame) -> av.VideoFrame:
    """Returns a picture on a white background, or `frame` itself if all pixels are opaque."""
    if not colour.has_alpha(frame):
        return frame
    graph = _chain(frame, (("format", {"pix_fmts": "rgba"}),))
    pixels = _pulled(graph, frame)
    if pixels[..., 3].min() == 255:
        return frame
    opaque = av.VideoFrame.from_ndarray(colour.over_background(pixels), format="rgb24")
    opaque.pts = 0
    return opaque


def _graph(
    frame, part: geometry.Window, signs, fitted: geometry.Fit, pixels: str
) -> av.filter.Graph:
    """Builds the filters that turn a picture, resize it, crop its centre and convert its pixels.

    Args:
        frame: the picture.
        part: part of the picture to keep.
        signs: how the picture is turned; see `geometry.orientation`.
        fitted: size that the kept part gets.
        pixels: FFmpeg's name of the pixels' format.
    """
    rows, columns = fitted.rows, fitted.columns
    # Area averaging shrinks without aliasing, but would show blocks when it enlarges.
    shrinks = rows * columns <= part.width * part.height
    matrix = colour.matrix_options(frame)
    flags = ("area" if shrinks else "bicubic") + "+accurate_rnd+full_chroma_int"
    box = {"x": part.left, "y": part.top, "w": part.width, "h": part.height}
    is_whole = part == geometry.whole(frame.height, frame.width)
    return _chain(
        frame,
        (
            *((("crop", {k: str(v) for k, v in box.items()}),) if not is_whole else ()),
            *geometry.turn_filters(signs),
            ("scale", {"w": str(columns), "h": str(rows), "flags": flags, **matrix}),
            ("crop", {"w": str(fitted.width), "h": str(fitted.height), "exact": "1"}),
            ("format", {"pix_fmts": pixels}),
        ),
    )


def _chain(frame, filters) -> av.filter.Graph:
    """Builds a graph of FFmpeg that applies filters, one after the other, to pictures.

    Args:
        frame: a picture with the size and format of all pictures that the graph will get.
        filters: name and options of each filter.
    """
    graph = av.filter.Graph()
    graph.threads = 1
    node = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    for name, options in (*filters, ("buffersink", {})):
        next_node = graph.add(name, **options)
        node.link_to(next_node)
        node = next_node
    graph.configure()
    return graph


def _pulled(graph, frame) -> np.ndarray:
    graph.vpush(frame)
    return graph.vpull().to_ndarray()
