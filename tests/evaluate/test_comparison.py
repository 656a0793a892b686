"""A protocol's data: what is missing is said, and samples are shared out as its classes are."""

import dataclasses
import pathlib
import runpy

import numpy as np
import pytest
import tiny

from stunet.data import media
from stunet.errors import UserError
from stunet.evaluate import comparison

UCF101 = pathlib.Path(__file__).parents[2] / "experiments" / "ucf101_zero_shot.py"


@pytest.fixture
def protocol(tmp_path):
    """Three videos of "HighJump" and one of "YoYo", each brighter than the one before."""
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
    """`found(num)`: what a run of clips of 5 frames is compared with."""
    monkeypatch.setattr(comparison, "_read", lambda file: protocol)

    def find(num=None, frames=5):
        config = tiny.config(data=dict(frames=frames, height=8, width=4, channels=1))
        return comparison.by_protocol(UCF101, config, num)

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


def test_every_video_is_compared_with_and_prompts_follow_the_classes(found):
    against = found()
    assert list(against.captions) == 7 * ["high jump"] + 2 * ["yo yo"]
    assert against.references == 4
    assert against.real is None
    assert against.metrics == "fvd"
    clips = [against.reference[i]["video"] for i in range(4)]
    assert {clip.shape for clip in clips} == {(5, 8, 4, 1)}
    np.testing.assert_allclose([clip.mean() for clip in clips], [0, 60, 120, 180], atol=4)


def test_a_trial_is_of_as_many_of_both(found):
    against = found(num=2)
    # Of three and one, two are one and a half and a half.
    assert sorted(against.captions) in (["high jump", "high jump"], ["high jump", "yo yo"])
    assert len(against.captions) == against.references == len(against.reference) == 2


def test_what_is_missing_is_said(protocol, found, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="judges 5 frames, and the run makes clips of 4"):
        found(frames=4)
    short = comparison.FirstFrames(
        [tmp_path / "videos" / "YoYo" / "a.mp4"], 7, 10.0, tiny.config().data
    )
    with pytest.raises(UserError, match=r"a\.mp4 is shorter than 7 frames"):
        short[0]
    (tmp_path / "videos" / "YoYo" / "a.mp4").unlink()
    with pytest.raises(UserError, match="holds 3 videos of 1 classes, and UCF-101 has 4 of 2; put"):
        found()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="UCF-101 needs runs/UCF-101, which is not there; put"):
        comparison.by_protocol(UCF101, tiny.config(data=dict(frames=16)), None)
    with pytest.raises(UserError, match=r"--protocol: no file 'none\.py'"):
        comparison.by_protocol(pathlib.Path("none.py"), tiny.config(), None)
    pathlib.Path("broken.py").write_text("def get_protocol():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"broken\.py: ZeroDivisionError"):
        comparison.by_protocol(pathlib.Path("broken.py"), tiny.config(), None)
