"""Reads a picture file that a clip begins with."""

import pathlib

import numpy as np
from jaxtyping import Float
from PIL import Image

from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.prepare import colour, pictures


def read_picture(path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "h w c"]:
    """Reads a picture file (`stunet.prepare.pictures.read`). Values are in -1..1.

    Raises:
        UserError: the picture cannot be read, or does not have the size of the run's clips.
    """

    def check_size(picture: Image.Image) -> None:
        height, width = pictures.shown_size(picture)
        if (height, width) != (clip.height, clip.width):
            raise UserError(
                f"{path} is {width} pixels wide and {height} high; the run makes clips "
                f"{clip.width} wide and {clip.height} high: crop or resize it to that"
            )

    pixels = pictures.read(path, check_size)
    if clip.channels == 1:
        pixels = colour.to_grey(pixels)[..., None]
    return pixels.astype(np.float32) / 127.5 - 1
