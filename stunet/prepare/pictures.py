"""Reads picture files as viewers show them: upright, in sRGB with 8 bits, on a white background."""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from stunet.errors import UserError
from stunet.prepare import colour
from stunet.prepare.places import Member, Place, Section

# Formats whose pixels of Pillow's mode I are whole numbers up to 65535. Elsewhere nobody knows
# which number is white.
_SIXTEEN_BITS = ("PNG", "PPM")


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Returns (rows, columns) of an open picture when it is upright. Reads only its header."""
    # Orientations 5 to 8 swap rows and columns.
    lies = picture.getexif().get(0x0112, 1) >= 5
    return picture.size if lies else picture.size[::-1]


def read(
    place: Place, check: Callable[[Image.Image], None] = lambda picture: None
) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture.

    The picture is turned upright by the orientation in its EXIF data. If the file has a colour
    profile, the colours are converted from the profile to sRGB. CMYK without a profile is converted
    by Pillow's simple formula. Pixels of 16 bits are rounded to 8 bits. A white background shows
    through transparent pixels. Of an animation, the first picture is read.

    Args:
        place: place of the picture.
        check: raises a UserError for a picture that is not wanted. It gets the open picture before
            any pixels are read into memory.

    Raises:
        UserError: there is no such file, it is no picture, it is damaged, or its format does not
            define which pixel value is white.
    """
    file = place.archive if isinstance(place, Member) else place
    # Reading a pipe would wait for its writer.
    if file.exists() and not file.is_file():
        raise UserError(f"cannot read {place} (it is no regular file)")
    try:
        with (
            Section(place) if isinstance(place, Member) else place.open("rb") as content,
            Image.open(content) as picture,
        ):
            check(picture)
            return _as_shown(place, ImageOps.exif_transpose(picture), picture.format)
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(f"{place} is no picture that can be read; give a PNG or a JPEG") from None
    except OSError as error:
        raise UserError(f"cannot read {place} ({error.strerror or error})") from error
    except Exception as error:  # Pillow raises whatever comes up while it reads damaged files.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"cannot read {place} ({reason})") from error


def _as_shown(
    place: Place, picture: Image.Image, file_format: str | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the colours of a picture as a viewer shows them, in sRGB on white."""
    if picture.mode == "F" or (picture.mode == "I" and file_format not in _SIXTEEN_BITS):
        raise UserError(
            f"{place} has floating-point or 32-bit pixels, of which nothing says what is white; "
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
