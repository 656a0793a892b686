"""Draws the picture on which the user chooses a region, and finds the pixels that were chosen."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from stunet.data.media import sheets
from stunet.data.spec import ClipSpec
from stunet.generate import inputs, pictures

_MARK = (255, 64, 32)
BRUSH = "#{:02x}{:02x}{:02x}".format(*_MARK)

# The share of a pixel that the brush must cover to choose it. A dab in the middle of four pixels
# covers less than a quarter of each, and chooses none of them.
_COVERED = 0.25


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


def size(clip: ClipSpec) -> tuple[int, int]:
    """Returns the height and width of the enlarged picture."""
    scale = sheets.scale(clip.height, clip.width)
    return clip.height * scale, clip.width * scale


def radius(clip: ClipSpec) -> int:
    """Returns a radius of the brush, in the enlarged picture: a stroke is two pixels wide."""
    return sheets.scale(clip.height, clip.width)


def painted(layers: list[UInt8[np.ndarray, "h2 w2 4"]], clip: ClipSpec) -> Bool[np.ndarray, "h w"]:
    """Returns the pixels that the brush covers in any of the layers.

    Args:
        layers: what was drawn on the enlarged picture, in RGBA.
        clip: describes the clips of the run.
    """
    chosen = np.zeros((clip.height, clip.width), bool)
    for layer in layers:
        drawn = Image.fromarray(np.where(layer[..., 3] > 0, 255, 0).astype(np.uint8))
        share = drawn.resize((clip.width, clip.height), Image.Resampling.BOX)
        chosen |= np.asarray(share) > 255 * _COVERED
    return chosen


def write_mask(chosen: Bool[np.ndarray, "h w"], path: pathlib.Path) -> None:
    """Writes pixels as a picture that `--mask` takes."""
    Image.fromarray(np.where(chosen, 255, 0).astype(np.uint8)).save(path)


def _repeated(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, axis=0).repeat(times, axis=1)
