"""Converts pictures with high dynamic range, wide colours or transparency to 8-bit RGB or grey.

FFmpeg's own mapping of colours needs 4 s of processor time to build a table for each video, and
gives other colours when it resizes in the same step (FFmpeg 8.1). So clips are mapped here, after
they are shrunk. Equations and numbers are those of ITU-R BT.2100-2 (HLG and PQ), BT.2087
(primaries) and BT.1886 (ordinary screens).
"""

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc
from jaxtyping import Float, UInt8, UInt16

from stunet.errors import UserError

_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED
# By the numbers of ITU-T H.273. IPT is that of Dolby Vision's profile 5.
_UNMAPPED = {8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "ST 2085", 14: "ICtCp"} | {
    12: "derived from the primaries",
    13: "derived from the primaries",
    15: "IPT",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
# What shows through transparent pixels, as on the page of a browser.
BACKGROUND = 255

# To the primaries of BT.709, from those of BT.2020 and of Display P3 (in linear light).
_TO_BT709 = {
    ColorPrimaries.BT2020: (
        (1.6605, -0.5876, -0.0728),
        (-0.1246, 1.1329, -0.0083),
        (-0.0182, -0.1006, 1.1187),
    ),
    ColorPrimaries.SMPTE432: (
        (1.2249, -0.2247, 0.0),
        (-0.0420, 1.0419, 0.0),
        (-0.0197, -0.0786, 1.0979),
    ),
}
_LUMINANCE = (0.2627, 0.6780, 0.0593)  # shares of BT.2020's primaries
_SCREEN_GAMMA = 2.4
# Diffuse white in pictures of high dynamic range (BT.2408), and the brightest light that is told
# from brighter ones, in candela per square metre.
_WHITE, _PEAK = 203.0, 1000.0


def check_matrix(frame: av.VideoFrame) -> None:
    """Checks that FFmpeg's scaler can convert a picture to RGB.

    Raises:
        UserError: the scaler does not support the picture's colour matrix, and would use BT.601
            without a warning.
    """
    if frame.colorspace in _UNMAPPED:
        raise UserError(
            f"its pictures have the colour matrix {_UNMAPPED[frame.colorspace]}, which is not "
            "converted to RGB; convert it to BT.709 first"
        )


def matrix_options(frame: av.VideoFrame) -> dict[str, str]:
    """Returns the option that tells FFmpeg's scaler the colour matrix of a picture, or no option.

    If a picture of high definition states no matrix, players assume BT.709, but FFmpeg would assume
    BT.601. Only such pictures need the option.
    """
    is_large = frame.width >= 1280 or frame.height > 576
    untold = frame.colorspace == _UNSPECIFIED and is_large
    return {"in_color_matrix": "bt709"} if untold and not frame.format.is_rgb else {}


def is_special(frame: av.VideoFrame) -> bool:
    """Tells whether a picture has a high dynamic range or wide colours, which `ordinary` maps."""
    return frame.color_trc in _NITS or frame.color_primaries in _TO_BT709


def ordinary(
    signal: UInt16[np.ndarray, "h w 3"], transfer: int, primaries: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Maps the colours of a picture to those of an ordinary screen (BT.709, 8 bits).

    High dynamic range is compressed by Reinhard's curve (SIGGRAPH 2002, equation 4) applied to
    luminance. Dark tones hardly change, and 1,000 candela per square metre become white.

    Args:
        signal: red, green and blue of the file, 0 to 65535.
        transfer: the file's transfer function, a `ColorTrc`.
        primaries: the file's primaries, a `ColorPrimaries`.
    """
    encoded = signal / np.float32(65535)
    if transfer in _NITS:
        light = np.minimum(_NITS[transfer](encoded), _PEAK) / _WHITE
        luminance = light @ np.array(_LUMINANCE, np.float32)
        light *= ((1 + luminance / (_PEAK / _WHITE) ** 2) / (1 + luminance))[..., None]
    else:
        light = encoded**_SCREEN_GAMMA
    if primaries in _TO_BT709:
        light = light @ np.array(_TO_BT709[primaries], np.float32).T
    return np.rint(255 * light.clip(0, 1) ** (1 / _SCREEN_GAMMA)).astype(np.uint8)


def _hlg(signal: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Returns the light of an HLG signal on a screen of 1,000 candela per square metre."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array(_LUMINANCE, np.float32)
    return 1000 * scene * luminance[..., None] ** 0.2


def _pq(signal: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Returns the light of a PQ signal, in candela per square metre."""
    m1, m2 = 1305 / 8192, 2523 / 32
    c1, c2, c3 = 107 / 128, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    return 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


_NITS = {ColorTrc.SMPTE2084: _pq, ColorTrc.ARIB_STD_B67: _hlg}


def over_background(
    pixels: UInt8[np.ndarray, "h w 4"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Blends pixels with transparency onto a white background.

    Args:
        pixels: red, green, blue and opacity (255 is opaque).
    """
    opacity = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * opacity + np.uint16(BACKGROUND) * (255 - opacity) + np.uint16(128)
    # Division by 255, rounded, in 16 bits: pictures may be large.
    return ((mixed + (mixed >> 8)) >> 8).astype(np.uint8)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Tells whether the format of a picture can hold transparency."""
    return any(component.is_alpha for component in frame.format.components)


def to_grey(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Converts RGB to grey by the luma of BT.601, as FFmpeg and Pillow do."""
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
