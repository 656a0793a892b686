"""Pictures are prepared as shots of one frame, which training reads as clips of one frame."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from stunet import cli
from stunet.data.shots.layout import Spec, read_index
from stunet.data.shots.source import ShotClips
from stunet.data.spec import ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.prepare.kinds import PICTURES
from stunet.prepare.run import prepare

TEXT = TextSpec("bytes", 8, 16)
# 32 x 32 pixels fit exactly, and raw pixels are stored as they are.
SPEC = Spec(side=32, codec="raw", quality=0, group=1)
NAMES = ("a.png", "b.JPG", "c.webp", "d.jpeg")


def colour(number):
    return np.array([40 * number, 200 - 40 * number, 90], np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Pictures of one colour with a dark upper half, two of them turned by their cameras."""
    made = tmp_path / "pictures"
    made.mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.broadcast_to(colour(number), (32, 32, 3)).copy()
        pixels[:16] //= 4
        picture, options = Image.fromarray(pixels), {}
        if number in (1, 3):
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 3  # upside down
            picture = picture.transpose(Image.Transpose.ROTATE_180)
        if number != 0:
            options["quality"] = 100
        picture.save(made / name, **options)
        (made / name).with_suffix(".txt").write_text(f"colour {number}")
    (made / "film.mp4").write_bytes(b"no video")
    return made


def examples(place, tmp_path):
    shots = tmp_path / "shots"
    summary = prepare(
        place, shots, SPEC, kind=PICTURES, val_fraction=0.0, workers=1, progress=False
    )
    assert read_index(shots).frames.tolist() == [1] * len(NAMES)
    source = ShotClips(shots, "train", ClipSpec(1, 32, 32, 3, 24.0), TEXT)
    found = [source[i] for i in range(len(source))]
    return summary, {example["caption"]: example["video"] for example in found}


def assert_shown(videos):
    assert len(videos) == len(NAMES)
    for number in range(len(NAMES)):
        (frame,) = videos[f"colour {number}"].astype(int)
        np.testing.assert_allclose(frame[20:], np.broadcast_to(colour(number), (12, 32, 3)), atol=6)
        assert frame[:12].mean() < 0.4 * frame[20:].mean()


def test_a_folder_of_pictures(folder, tmp_path):
    summary, videos = examples(folder, tmp_path)
    assert_shown(videos)
    assert "film.mp4" in " ".join(summary.notes)
    with pytest.raises(UserError, match=r"clip of 0.08 s .*lower data.frames"):
        ShotClips(tmp_path / "shots", "train", ClipSpec(2, 32, 32, 3, 24.0), TEXT)


def test_pictures_in_tar_files(folder, tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    assert_shown(examples(tmp_path / "0.tar", tmp_path)[1])


def test_a_list_of_pictures(folder, tmp_path):
    rows = [f"pictures/{name},colour {number}" for number, name in enumerate(NAMES)]
    (tmp_path / "list.csv").write_text("\n".join(["path,caption", *rows]))
    assert_shown(examples(tmp_path / "list.csv", tmp_path)[1])


def test_damaged_pictures_are_skipped_and_named(folder, tmp_path):
    whole = (folder / "b.JPG").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    summary, videos = examples(folder, tmp_path)
    assert_shown(videos)
    told = str(summary)
    assert "cut.jpg" in told
    assert "text.png is no picture" in told


def test_the_command_holds_out_single_pictures(folder, tmp_path):
    for number in range(16):
        (folder / f"more_{number:02}.png").write_bytes((folder / "a.png").read_bytes())
    arguments = ["prepare", folder, tmp_path / "shots", "--pictures", "--workers=1", "--side=32"]
    assert cli.main(list(map(str, arguments))) == 0
    held = read_index(tmp_path / "shots").held_out
    assert held.sum() == 2
    assert set(held.tolist()) == {0, 1}


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no picture; pictures are files that end in \.jpg"):
        prepare(tmp_path, tmp_path / "shots", kind=PICTURES)
