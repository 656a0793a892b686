"""A protocol names missing data, and samples in proportion to its classes."""

import dataclasses
import pathlib
import runpy

import numpy as np
import pytest

from stunet.data import media
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.evaluate import comparison

CLIP = ClipSpec(frames=16, height=8, width=4, channels=1, fps=10.0)
UCF101 = pathlib.Path(__file__).parents[2] / "experiments" / "ucf101_zero_shot.py"


@pytest.fixture
def protocol(tmp_path):
    """Writes three videos of "HighJump" and one of "YoYo", each brighter than the one before."""
    for number, name in enumerate(("HighJump/a", "HighJump/b", "HighJump/c", "YoYo/a")):
        file = tmp_path / "videos" / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        media.write_mp4(file, np.full((1, 6, 16, 16, 3), 60 * number, np.uint8), 10)
    (tmp_path / "videos" / "YoYo" / "notes.txt").write_text("no video")
    ucf101 = runpy.run_path(str(UCF101))["get_protocol"]()
    return dataclasses.replace(
        ucf101, videos=str(tmp_path / "videos"), classes=2, clips=4, samples=9, frames=5, fps=10.0
    )


@pytest.fixture
def found(protocol, monkeypatch):
    """`found(num)` returns the comparison of a run whose clips have 5 frames."""
    monkeypatch.setattr(comparison, "_read", lambda file: protocol)

    def find(num=None, frames=5):
        return comparison.from_protocol(UCF101, dataclasses.replace(CLIP, frames=frames), num)

    return find


def test_shares_are_in_proportion_and_add_up():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = {str(i): int(n) for i, n in enumerate(rng.integers(1, 200, 101))}
        num, total = int(rng.integers(1, 20_000)), sum(sizes.values())
        shares = comparison.share_out(num, sizes)
        assert sum(shares.values()) == num
        assert all(abs(shares[name] - num * size / total) < 1 for name, size in sizes.items())
    assert comparison.share_out(9, {"a": 3, "b": 1}) == {"a": 7, "b": 2}


def test_all_videos_are_reference_clips_and_prompts_follow_the_classes(found):
    compared = found()
    assert list(compared.captions) == 7 * ["high jump"] + 2 * ["yo yo"]
    assert compared.num_reference == 4
    assert compared.real is None
    assert compared.default_metrics == "fvd"
    clips = [compared.reference[i]["video"] for i in range(4)]
    assert {clip.shape for clip in clips} == {(5, 8, 4, 1)}
    np.testing.assert_allclose([clip.mean() for clip in clips], [0, 60, 120, 180], atol=4)


def test_a_trial_has_equally_many_samples_and_reference_clips(found):
    compared = found(num=2)
    # The shares of 3 and 1 videos are 1.5 and 0.5.
    assert sorted(compared.captions) in (["high jump", "high jump"], ["high jump", "yo yo"])
    assert len(compared.captions) == compared.num_reference == len(compared.reference) == 2


def test_missing_data_and_short_clips_are_named(protocol, found, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="judges 5 frames, and the run makes clips of 4"):
        found(frames=4)
    short = comparison.FirstFrames([tmp_path / "videos" / "YoYo" / "a.mp4"], 7, 10.0, CLIP)
    with pytest.raises(UserError, match=r"a\.mp4 is shorter than 7 frames"):
        short[0]
    (tmp_path / "videos" / "YoYo" / "a.mp4").unlink()
    with pytest.raises(UserError, match="holds 3 videos of 1 classes, and UCF-101 has 4 of 2; put"):
        found()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="UCF-101 needs runs/UCF-101, which is not there; put"):
        comparison.from_protocol(UCF101, CLIP, None)
    with pytest.raises(UserError, match=r"--protocol: no file 'none\.py'"):
        comparison.from_protocol(pathlib.Path("none.py"), CLIP, None)
    pathlib.Path("broken.py").write_text("def get_protocol():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"broken\.py: ZeroDivisionError"):
        comparison.from_protocol(pathlib.Path("broken.py"), CLIP, None)
