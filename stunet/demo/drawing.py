"""Draws the picture on which the user chooses a box, and finds the pixels that were clicked."""

import pathlib

import numpy as np
from jaxtyping import Float, UInt8

from stunet.data.media import sheets
from stunet.data.spec import ClipSpec
from stunet.generate import inputs, pictures

_MARK = (255, 64, 32)


def read(kind: str, path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "h w c"]:
    """Returns the picture, or the first frame of the video, as the network is given it.

    Args:
        kind: "image" or "video".
        path: file of the user.
        clip: describes the clips of the run.

    Raises:
        UserError: the file cannot be read or does not suit the run.
    """
    if kind == "image":
        return pictures.read_picture(path, clip)
    return inputs.read_clip(path, clip)[0]


def enlarged(
    picture: Float[np.ndarray, "h w c"], clip: ClipSpec, box: str = ""
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Returns a picture in a size that can be clicked on, with the outline of a box.

    Args:
        picture: picture in -1..1.
        clip: describes the clips of the run.
        box: box as `--box` takes it; "" for none.

    Raises:
        UserError: the box does not lie inside the picture.
    """
    scale = sheets.scale(clip.height, clip.width)
    pixels = _repeated(sheets.rgb(picture), scale)
    if box:
        region = _repeated(inputs.read_box(box, clip), scale)
        pixels[inputs.outline(region)] = _MARK
    return pixels


def clicked(place: tuple[int, int], clip: ClipSpec) -> tuple[int, int]:
    """Returns the row and column of the pixel at a place of the enlarged picture.

    Args:
        place: x and y in the enlarged picture.
        clip: describes the clips of the run.
    """
    scale, (x, y) = sheets.scale(clip.height, clip.width), place
    return min(int(y) // scale, clip.height - 1), min(int(x) // scale, clip.width - 1)


def _repeated(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, axis=0).repeat(times, axis=1)
