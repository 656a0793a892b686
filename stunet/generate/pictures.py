"""Reads a picture file as viewers show it: upright, in sRGB with 8 bits, on a white background."""

import io
import pathlib

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.prepare import colour

# Formats whose pixels of Pillow's mode I are whole numbers up to 65535. Elsewhere nobody knows
# which number is white.
_SIXTEEN_BITS = ("PNG", "PPM")


def read_picture(path: pathlib.Path, clip: ClipSpec) -> Float[np.ndarray, "h w c"]:
    """Reads a picture file. Values are in -1..1.

    The picture is turned upright by the orientation in its EXIF data. If the file has a colour
    profile, the colours are converted from the profile to sRGB. CMYK without a profile is converted
    by Pillow's simple formula. Pixels of 16 bits are rounded to 8 bits. A white background shows
    through transparent pixels.

    Raises:
        UserError: there is no such file, it is no picture, its format does not define which pixel
            value is white, or the picture does not have the size of the run's clips.
    """
    # Reading a pipe would wait for its writer.
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read {path} (it is no regular file)")
    try:
        with Image.open(path) as file:
            _check_size(path, file, clip)
            pixels = _as_shown(path, ImageOps.exif_transpose(file), file.format)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture that can be read; give a PNG or a JPEG") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    except Exception as error:  # Pillow raises whatever comes up while it reads damaged files.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"cannot read {path} ({reason})") from error
    if clip.channels == 1:
        pixels = colour.to_grey(pixels)[..., None]
    return pixels.astype(np.float32) / 127.5 - 1


def _check_size(path: pathlib.Path, file: Image.Image, clip: ClipSpec) -> None:
    """Checks the size in the file's header, before any pixels are read into memory."""
    # Orientations 5 to 8 swap rows and columns.
    lies = file.getexif().get(0x0112, 1) >= 5
    width, height = file.size[::-1] if lies else file.size
    if (width, height) != (clip.width, clip.height):
        raise UserError(
            f"{path} is {width} pixels wide and {height} high; the run makes clips "
            f"{clip.width} wide and {clip.height} high: crop or resize it to that"
        )


def _as_shown(
    path: pathlib.Path, picture: Image.Image, file_format: str | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the colours of a picture as a viewer shows them, in sRGB on white."""
    if picture.mode == "F" or (picture.mode == "I" and file_format not in _SIXTEEN_BITS):
        raise UserError(
            f"{path} has floating-point or 32-bit pixels, of which nothing says what is white; "
            "save it with 8 or 16 bits"
        )
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64) / 257
        grey = np.rint(values).clip(0, 255).astype(np.uint8)
        clear = np.asarray(picture) == picture.info.get("transparency", -1)
        return np.where(clear, np.uint8(colour.BACKGROUND), grey)[..., None].repeat(3, axis=-1)
    opacity = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    if profile := picture.info.get("icc_profile"):
        picture = _in_srgb(picture, profile)
    pixels = np.asarray(picture.convert("RGB"))
    if opacity is None:
        return pixels
    return colour.over_background(np.dstack([pixels, np.asarray(opacity)]))


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Converts a picture from a colour profile to sRGB. Ignores a profile that cannot be used."""
    if picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    try:
        return ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError):
        # A damaged profile, or one for other kinds of pixels. Viewers ignore those.
        return picture
