"""Pictures: the colours that a viewer shows, whatever the file's pixels are, or one sentence."""

import contextlib
import dataclasses
import io
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stunet.data.media import to_uint8
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.generate import pictures

CASES = pathlib.Path(__file__).parent / "cases"
DATA = ClipSpec(frames=4, height=8, width=6, channels=1, fps=10.0)
RGB = dataclasses.replace(DATA, channels=3)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 8, 6), np.uint8)


def read(path, clip=RGB):
    """Returns the picture as bytes, the shape of one pixel last."""
    return to_uint8(pictures.read_picture(path, clip))


def test_a_picture_pixel_by_pixel(tmp_path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "grey.png")
    picture = pictures.read_picture(tmp_path / "grey.png", DATA)
    np.testing.assert_array_equal(to_uint8(picture)[..., 0], FRAMES[0])
    assert picture.min() >= -1
    assert picture.max() <= 1
    colours = dataclasses.replace(DATA, channels=3)
    np.testing.assert_allclose(
        pictures.read_picture(tmp_path / "grey.png", colours), np.repeat(picture, 3, -1)
    )


def test_pictures_that_do_not_fit(tmp_path):
    Image.fromarray(FRAMES[0].T).save(tmp_path / "turned.png")
    with pytest.raises(UserError, match=r"8 pixels wide and 6 high; .* 6 wide and 8 high"):
        pictures.read_picture(tmp_path / "turned.png", DATA)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png is no picture"):
        pictures.read_picture(tmp_path / "text.png", DATA)
    with pytest.raises(UserError, match=r"cannot read .*none.png \(No such file"):
        pictures.read_picture(tmp_path / "none.png", DATA)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("clip", [DATA, RGB])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, suffix, clip):
    deep = np.linspace(0, 65535, 48).astype(np.uint16).reshape(8, 6)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    expected = np.rint(deep / 257)[..., None].repeat(clip.channels, -1)
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}", clip), expected)


def test_a_ramp_of_16_bits_stays_a_ramp():
    grey = read(CASES / "gray16.png", dataclasses.replace(DATA, height=16, width=24))[..., 0]
    deep = np.asarray(Image.open(CASES / "gray16.png"))
    np.testing.assert_array_equal(grey, np.rint(deep / 257))
    assert len(np.unique(grey)) > 20


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_defined_white_are_refused(tmp_path, mode):
    Image.new(mode, (6, 8), 1).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"a\.tiff has .* save it with 8 or 16 bits"):
        read(tmp_path / "a.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("clip", [DATA, RGB])
def test_white_shows_through_transparent_pixels(tmp_path, mode, clip):
    picture = Image.new("RGBA", (6, 8), (0, 0, 0, 0))
    picture.paste((102, 102, 102, 255), (3, 0, 6, 8))
    if mode in ("P", "RGB", "L"):  # one colour is the transparent one
        picture = picture.convert("RGB").convert(mode)
        picture.save(tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png", clip)
    transparent = Image.open(tmp_path / "a.png").convert("RGBA").getchannel("A")
    expected = np.where(np.asarray(transparent) == 0, 255, 102)
    assert 0 in np.asarray(transparent)
    np.testing.assert_array_equal(pixels, expected[..., None].repeat(clip.channels, -1))


def test_colours_follow_the_profile_of_the_file(tmp_path):
    """The same colours, noted in two profiles: read alike."""
    lab = ImageCms.createProfile("LAB", 5000)
    image = Image.fromarray(FRAMES[:3].transpose(1, 2, 0) // 3 + 140)
    image.save(tmp_path / "plain.png")
    linear = _linear_profile()
    moved = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), linear)
    assert np.abs(np.asarray(moved).astype(int) - np.asarray(image)).max() > 20
    moved.save(tmp_path / "moved.png", icc_profile=linear.tobytes())
    np.testing.assert_allclose(
        read(tmp_path / "moved.png").astype(int), read(tmp_path / "plain.png"), atol=3
    )
    image.save(tmp_path / "damaged.png", icc_profile=b"no profile")
    np.testing.assert_array_equal(read(tmp_path / "damaged.png"), read(tmp_path / "plain.png"))
    image.save(tmp_path / "other.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    np.testing.assert_array_equal(read(tmp_path / "other.png"), read(tmp_path / "plain.png"))


def test_cmyk_is_read_as_colours(tmp_path):
    Image.new("CMYK", (6, 8), (0, 255, 255, 0)).save(tmp_path / "a.tiff")
    assert read(tmp_path / "a.tiff")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("turn", range(1, 9))
def test_cameras_orientations(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = Image.fromarray(FRAMES[0])
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(turn)
    stored = upright if back is None else upright.transpose(back)
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png", DATA)[..., 0], FRAMES[0])


def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path):
    import struct
    import zlib

    for side in (10_000, 30_000, 2**31 - 1):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + header
        content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        (tmp_path / "a.png").write_bytes(content + struct.pack(">I", zlib.crc32(chunk)))
        with pytest.raises(UserError, match=r"a\.png"):
            read(tmp_path / "a.png")


def _png() -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(FRAMES[:3].transpose(1, 2, 0))
    picture.save(file, "PNG", dpi=(72, 72), icc_profile=_linear_profile().tobytes())
    return file.getvalue()


def _linear_profile() -> ImageCms.ImageCmsProfile:
    """Returns sRGB with another gamma: 1.2 in place of 2.4."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert srgb.count(bytes.fromhex("00026666"))
    return ImageCms.ImageCmsProfile(
        io.BytesIO(srgb.replace(bytes.fromhex("00026666"), bytes.fromhex("00013333")))
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20))
def test_whatever_bytes_change_there_is_a_picture_or_one_sentence(tmp_path, changes):
    changed = bytearray(_png())
    for place, value in changes:
        changed[int(place * len(changed))] = value
    (tmp_path / "a.png").write_bytes(changed)
    with contextlib.suppress(UserError):
        assert read(tmp_path / "a.png").shape == (8, 6, 3)
