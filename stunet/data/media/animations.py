"""Writes clips as animated contact sheets: GIF and MP4."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from stunet.data.media.sheets import Clips, contact_sheet
from stunet.files import atomic

# Viewers slow down a GIF whose frames last less than 20 ms.
_MAX_GIF_FPS = 50


def write_gif(
    path: str | Path,
    clips: Clips,
    fps: float | int,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> None:
    """Writes a contact sheet of clips as a GIF that repeats forever.

    A GIF stores the duration of each frame in hundredths of a second. The durations alternate, for
    example between 60 and 70 ms, so that no frame begins more than 5 ms early or late. Above 50
    frames per second some frames are left out. All frames share one palette of 256 colours, so that
    colours do not flicker.

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        fps: frames per second.
        captions: as for `contact_sheet`.
        columns: as for `contact_sheet`.
    """
    frames = contact_sheet(clips, captions, columns=columns)
    step = math.ceil(fps / _MAX_GIF_FPS)
    # The last frame kept lasts until the end of the clip.
    kept = range(0, max(1, len(frames) - step + 1), step)
    starts = [round(100 * i / fps) for i in [*kept, len(frames)]]
    durations = [10 * (end - start) for start, end in itertools.pairwise(starts)]
    frames = frames[kept]
    palette = _palette(frames)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    with atomic(path) as partial:
        images[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            optimize=False,
        )


def write_mp4(
    path: str | Path,
    clips: Clips,
    fps: float | int,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    upscale: int | None = None,
    crf: int = 18,
) -> None:
    """Writes a contact sheet of clips as H.264 video (yuv420p, which every player reads).

    Args:
        path: path of the file, which appears when it is complete.
        clips: clips as float in -1..1 or as uint8, grey or RGB.
        fps: frames per second.
        captions: as for `contact_sheet`.
        columns: as for `contact_sheet`.
        upscale: as for `contact_sheet`. An odd height or width of the sheet is then padded by one
            pixel.
        crf: quality setting of libx264, from 0 (lossless) to 51; 18 looks like the original.
    """
    frames = contact_sheet(clips, captions, columns=columns, upscale=upscale)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rate = Fraction(fps).limit_denominator(10**6)
    with atomic(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # With several threads, or with x264's trees of macroblocks, two files of the same clips may
        # differ.
        stream.options = {"crf": str(crf), "x264-params": "threads=1:mbtree=0"}
        # If the file does not state its colour matrix, players guess it from the picture's size.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame = frame.reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation="AREA",
            )
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _palette(frames: np.ndarray) -> Image.Image:
    """Chooses a palette of 256 colours for all frames by looking at 16 frames or fewer."""
    chosen = frames[:: math.ceil(len(frames) / 16)]
    # Octree is by far the fastest of Pillow's methods, and gives the truest colours here.
    return Image.fromarray(chosen.reshape(-1, *chosen.shape[2:])).quantize(
        256, method=Image.Quantize.FASTOCTREE
    )
