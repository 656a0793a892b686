"""Reads the video, mask or box that a user gives beside a prompt, as arrays."""

import dataclasses
import pathlib
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, UInt8

from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.generate.pictures import read_picture
from stunet.prepare.decode import decode_clips, shown_extent
from stunet.prepare.kinds import is_picture
from stunet.progress import note


def read_clip(path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "t h w c"]:
    """Reads the beginning of a video as one clip like those of a run, in -1..1.

    The video is treated as `stunet prepare` treats it: resampled in time to the run's frame rate,
    shrunk or enlarged until it covers the run's rows and columns, and cropped at its centre. If
    the video has fewer frames a second than the run, frames repeat; a note on stderr says so if
    they are many.

    Raises:
        UserError: the video cannot be read, or is shorter than the run's clips.
    """
    return _to_float(_decode(path, clip, clip.channels))


def read_mask(path: pathlib.Path, video: pathlib.Path, clip: ClipSpec) -> Bool[np.ndarray, "..."]:
    """Reads a mask from a video `[t, h, w]`, or from a picture `[h, w]` for all frames.

    The mask is True where a pixel is white (128 of 255 and above). A picture has the size of the
    run's clips (see `read_region`). A mask video is resampled, resized and cropped like the video
    that it masks (see `read_clip`). Both videos must have the same size, as players show it. Their
    lengths may differ by half a frame at most. The mask video may have fewer frames, because a GIF
    stores equal frames once.

    Raises:
        UserError: the mask cannot be read, has another length or size than it must have, or has no
            white pixel.
    """
    if is_picture(path):
        return read_region(path, clip)
    white = _decode(path, clip, channels=1)[..., 0] >= 128
    (_, *size, seconds), (frames, *shown, length) = shown_extent(path), shown_extent(video)
    if size != shown or abs(seconds - length) > length / frames / 2:
        raise UserError(
            f"the mask {path} shows {_described(*size, seconds)}, and {video} "
            f"{_described(*shown, length)}; a mask has the size of its video, as players show it, "
            "and lasts equally long"
        )
    return _checked(white, path)


def read_region(path: pathlib.Path, clip: ClipSpec) -> Bool[np.ndarray, "h w"]:
    """Reads a mask from a picture file. The mask is True where a pixel is white (128 and above).

    Raises:
        UserError: the picture cannot be read, does not have the size of the run's clips, or has no
            white pixel.
    """
    grey = read_picture(path, dataclasses.replace(clip, channels=1))
    return _checked(grey[..., 0] > 0, path)


def read_box(text: str, clip: ClipSpec) -> Bool[np.ndarray, "h w"]:
    """Reads a rectangle `top,left,height,width`, in pixels, as a mask that is True inside it.

    Raises:
        UserError: the text is not four whole numbers, or the rectangle is empty or reaches beyond
            the frame.
    """
    try:
        top, left, height, width = map(int, text.split(","))
    except ValueError:
        raise UserError(
            f"box is {text!r}; it is top,left,height,width in pixels, as --box 2,4,8,8"
        ) from None
    inside = min(top, left) >= 0 and top + height <= clip.height and left + width <= clip.width
    if not inside or min(height, width) < 1:
        raise UserError(
            f"box is {text} (top,left,height,width), which is no rectangle inside the run's clips, "
            f"{clip.height} high and {clip.width} wide"
        )
    box = np.zeros((clip.height, clip.width), bool)
    box[top : top + height, left : left + width] = True
    return box


def outline(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns a mask of the pixels inside a region that touch its border or the frame's edge."""
    inner = np.pad(region, 1)
    inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return region & ~inner


def _decode(path: pathlib.Path, clip: ClipSpec, channels: int) -> UInt8[np.ndarray, "t h w c"]:
    rate = clip.frame_rate
    decoder = decode_clips(path, clip.frames, rate, clip.height, clip.width, channels)
    frames = next(decoder, None)
    notes = decoder.notes()
    if frames is None:
        what = f", but {'; '.join(notes)}" if notes else ""
        raise UserError(
            f"{path} has {decoder.dropped_frames} frames at {rate:g} a second{what}, and the run's "
            f"clips {clip.frames}: give a video at least that long"
        )
    for sentence in notes:
        note(f"{path} {sentence}")
    return frames


def _checked(white: Bool[np.ndarray, "..."], path: pathlib.Path) -> Bool[np.ndarray, "..."]:
    if not white.any():
        raise UserError(f"nothing in the mask {path} is white, which says where to paint")
    return white


def _described(height: int, width: int, seconds: Fraction) -> str:
    return f"{height}x{width} pixels for {float(seconds):.2f} s"


def _to_float(pixels: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return pixels.astype(np.float32) / 127.5 - 1
