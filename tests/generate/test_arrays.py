"""Clips as arrays: what is written is read again, and other files are refused."""

import dataclasses

import numpy as np
import pytest

from stunet.errors import UserError
from stunet.generate import arrays

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 6, 3), np.uint8)
SHOWN = arrays.Shown("text", "stunet sample text", 8.0, ("a 3", "ein Ä"), CLIPS)


@pytest.mark.parametrize("given", [None, CLIPS[:1, :1], CLIPS])
def test_what_is_written_is_read_again(tmp_path, given):
    shown = dataclasses.replace(SHOWN, given=given)
    arrays.write(tmp_path / "a.npz", shown)
    found = vars(arrays.read(tmp_path / "a.npz"))
    np.testing.assert_equal(found, vars(shown))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(clips=CLIPS.astype(float)), "not uint8"),
        (dict(clips=CLIPS[0]), "not uint8"),
        (dict(captions=("a",)), "needs a caption"),
        (dict(fps=0.0), "frame rate above 0"),
        (dict(fps=float("nan")), "frame rate above 0"),
        (dict(given=CLIPS[[0, 0, 1]]), "neither one clip nor one for each"),
        (dict(task=np.array([None])), "holds no clips"),
    ],
)
def test_damage_is_told_in_one_sentence(tmp_path, fields, sentence):
    shown = vars(SHOWN) | fields
    np.savez(tmp_path / "a.npz", **{k: v for k, v in shown.items() if v is not None})
    with pytest.raises(UserError, match=sentence):
        arrays.read(tmp_path / "a.npz")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    file = tmp_path / "a.npz"
    arrays.write(file, SHOWN)
    for content in (file.read_bytes()[:-30], b"", b"no zip"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="holds no clips of stunet, or is damaged"):
            arrays.read(file)
