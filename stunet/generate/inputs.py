"""Reads the picture, video, mask or box that a user gives beside a prompt, as arrays."""

import pathlib
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.prepare.decode import decode_clips


def read_picture(path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "h w c"]:
    """Reads a picture file, in -1..1. Turns it upright if the camera noted its orientation.

    Raises:
        UserError: there is no such file, it is no picture, or it has another size than the run's
            clips.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("L" if clip.channels == 1 else "RGB")
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that can be read; give a PNG or a JPEG") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    if picture.size != (clip.width, clip.height):
        raise UserError(
            f"{path} is {picture.width} pixels wide and {picture.height} high; the run makes clips "
            f"{clip.width} wide and {clip.height} high: crop or resize it to that"
        )
    pixels = np.asarray(picture).reshape(clip.height, clip.width, clip.channels)
    return _to_float(pixels)


def read_clip(path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "t h w c"]:
    """Reads the beginning of a video, in -1..1, as one clip of the run.

    The video is treated as `stunet prepare` treats it: resampled in time to the run's rate, shrunk
    or enlarged until it covers the run's rows and columns, and cropped at its centre.

    Raises:
        UserError: it cannot be read, or is shorter than the run's clips.
    """
    return _to_float(_decode(path, clip, clip.channels))


def read_mask(path: pathlib.Path, video: pathlib.Path, clip: ClipSpec) -> Bool[np.ndarray, "t h w"]:
    """Reads a mask video: True where it is white (128 of 255 and above).

    It is treated as `read_clip` treats the video that it belongs to.

    Raises:
        UserError: it cannot be read, has another length, size or rate than the video, or has no
            white pixel.
    """
    white = _decode(path, clip, channels=1)[..., 0] >= 128
    ours, theirs = _extent(path), _extent(video)
    if ours != theirs:
        raise UserError(
            f"the mask {path} has {_described(ours)}, and {video} {_described(theirs)}; a mask has "
            "as many frames as its video, of the same size, at the same rate"
        )
    if not white.any():
        raise UserError(f"nothing in the mask {path} is white, which says where to paint")
    return white


def read_box(text: str, clip: ClipSpec) -> Bool[np.ndarray, "h w"]:
    """Reads a rectangle `top,left,height,width` in pixels of the run's clips; True inside.

    Raises:
        UserError: it is not four whole numbers, is empty or leaves the frame.
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


def _decode(path: pathlib.Path, clip: ClipSpec, channels: int) -> UInt8[np.ndarray, "t h w c"]:
    rate = clip.frame_rate
    decoder = decode_clips(path, clip.frames, rate, clip.height, clip.width, channels)
    frames = next(decoder, None)
    if frames is None:
        raise UserError(
            f"{path} has {decoder.dropped_frames} frames at {rate:g} a second, and the run's clips "
            f"{clip.frames}: give a video at least that long"
        )
    return frames


def _extent(path: pathlib.Path) -> tuple[int, int, int, Fraction]:
    """Returns frames, rows, columns and frames per second of a video that can be decoded."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        return frames, stream.height, stream.width, stream.average_rate


def _described(extent: tuple[int, int, int, Fraction]) -> str:
    frames, height, width, rate = extent
    return f"{frames} frames of {height}x{width} pixels at {float(rate):g} a second"


def _to_float(pixels: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return pixels.astype(np.float32) / 127.5 - 1
