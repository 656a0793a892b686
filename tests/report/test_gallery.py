"""The gallery: each task has its section, with commands, inputs, clips and slices, in one file."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from stunet import cli
from stunet.errors import UserError
from stunet.generate import arrays
from stunet.generate.arrays import Shown
from stunet.report import gallery

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 6, 3), np.uint8)
SHOWN = Shown("text", "stunet sample text --prompt 'a <3>'", 8.0, ("a <3>", "b"), CLIPS)


def files(page: str) -> list[bytes]:
    encoded = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    return [base64.b64decode(data) for data in encoded]


def images(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(data)) for data in files(page)]


def frames(image: Image.Image) -> np.ndarray:
    found = []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        found.append(np.asarray(image.convert("RGB")))
    return np.stack(found)


def test_clips_play_unchanged_beside_slices_and_commands():
    page = gallery.gallery([SHOWN], "Title & more", "a note")
    shown = images(page)
    assert len(shown) == 4
    for clip, image in zip(CLIPS, shown[::2], strict=True):
        np.testing.assert_array_equal(frames(image), clip)
        assert image.info["loop"] == 0
    assert "stunet sample text --prompt &#39;a &lt;3&gt;&#39;" in page
    assert "Title &amp; more" in page
    assert "a note" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_large_clips_are_stored_in_fewer_bytes_and_look_the_same():
    rows, columns = np.mgrid[:96, :96]
    smooth = 128 + 80 * np.sin((rows + columns) / 15)[..., None] * [1.0, 0.5, -1.0]
    noise = np.random.default_rng(0).normal(0, 3, (1, 3, 96, 96, 3))
    clips = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    large, small = (
        gallery.gallery([dataclasses.replace(SHOWN, clips=c, captions=("a",))], "a")
        for c in (clips, clips[..., :48, :48, :])
    )
    np.testing.assert_array_equal(frames(images(small)[0]), clips[0, :, :48, :48])
    difference = np.abs(frames(images(large)[0]).astype(int) - clips[0])
    assert 0 < difference.mean() < 4
    # Without loss, four times the pixels would take four times the bytes.
    assert len(files(large)[0]) < 2 * len(files(small)[0])


def test_sections_follow_the_paper_and_only_those_with_clips_are_there():
    tasks = ["upscale", "style", "text", "data", "inpaint", "image", "cinemagraph", "video"]
    page = gallery.gallery([dataclasses.replace(SHOWN, task=task) for task in tasks], "a")
    headings = re.findall("<h2>(.*?)</h2>", page)
    wanted = [heading for name, (heading, _) in gallery.SECTIONS.items() if name in tasks]
    assert headings == wanted
    assert len(wanted) == len(tasks)


def test_pictures_are_told_from_clips():
    stills = dataclasses.replace(SHOWN, clips=CLIPS[:, :1])
    page = gallery.gallery([stills], "a")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Text to image"]
    # A picture has no slice.
    assert len(images(page)) == 2


def test_one_input_is_shown_once_and_several_beside_their_clips():
    for given, count in ((CLIPS[:1, :1], 1), (CLIPS, 2)):
        page = gallery.gallery([dataclasses.replace(SHOWN, task="image", given=given)], "a")
        assert page.count('class="given"') + page.count("class=given") == count


def test_a_small_input_is_shown_as_large_as_its_clip():
    large = CLIPS.repeat(4, axis=2).repeat(4, axis=3)
    page = gallery.gallery([dataclasses.replace(SHOWN, clips=large, given=CLIPS)], "a")
    heights = set(re.findall(r'alt="clip"[^>]* height="(\d+)"', page))
    assert heights == {"160"}


def test_grey_clips_are_shown_in_grey():
    page = gallery.gallery([dataclasses.replace(SHOWN, clips=CLIPS[..., :1])], "a")
    np.testing.assert_array_equal(frames(images(page)[0]), CLIPS[0, ..., :1].repeat(3, -1))


def test_directories_are_searched_at_any_depth(tmp_path, capsys):
    (tmp_path / "b" / "c").mkdir(parents=True)
    arrays.write(tmp_path / "b" / "c" / "one.npz", SHOWN)
    arrays.write(tmp_path / "two.npz", dataclasses.replace(SHOWN, captions=("x", "y")))
    out = tmp_path / "pages" / "gallery.html"
    assert cli.main(["gallery", str(tmp_path), "--out", str(out)]) == 0
    assert "(4 clips)" in capsys.readouterr().out
    text = out.read_text()
    assert text.index("a &lt;3&gt;") < text.index(">x<")


@pytest.mark.parametrize("name", ["nothing", "missing"])
def test_places_without_clips_are_refused(tmp_path, name):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"there are no clips in|does not exist"):
        gallery.write_gallery([tmp_path / name], tmp_path / "g.html")
    assert not (tmp_path / "g.html").exists()
