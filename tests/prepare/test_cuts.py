"""Cuts are found where scenes change, and not in motion, flicker or animation on twos."""

import numpy as np
import pytest
from videos import make_video, scene

from stunet.data.shots.layout import Spec, read_index
from stunet.prepare.cuts import Cut, with_cuts
from stunet.prepare.looks import seen
from stunet.prepare.run import prepare
from stunet.prepare.timing import Break


def cuts(pictures, times=1, threshold=6.0):
    """Returns the numbers of the pictures before which a cut is found."""
    found, count = [], 0
    for entry in with_cuts(seen((picture, times) for picture in pictures), threshold):
        if isinstance(entry, Cut):
            found.append(count)
        else:
            count += 1
    assert count == len(pictures)
    return found


def test_each_change_of_scene_is_a_cut():
    scenes = [scene(seed, frames) for seed, frames in enumerate((20, 7, 30, 12))]
    assert cuts(np.concatenate(scenes)) == [20, 27, 57]
    assert cuts(np.concatenate(scenes), threshold=0) == []


@pytest.mark.parametrize("speed", [0, 1, 8])
def test_motion_is_no_cut(speed):
    assert cuts(scene(0, 24, speed)) == []


def test_animation_that_shows_each_picture_twice_has_no_cuts():
    assert cuts(np.repeat(scene(0, 20, 4), 2, axis=0)) == []
    two = np.concatenate([scene(0, 20, 4), scene(1, 20, 4)])
    assert cuts(np.repeat(two, 2, axis=0)) == [40]


def test_breaks_and_other_sizes_stay_where_they_are():
    small = scene(1, 5)[:, ::2, ::2]
    entries = [*((p, 2) for p in scene(0, 5)), Break("gap"), *((p, 1) for p in small)]
    found = with_cuts(seen(entries), 6.0)
    assert [e if isinstance(e, Break) else e.times for e in found] == [
        *([2] * 5),
        Break("gap"),
        *([1] * 5),
    ]
    mixed = [(picture, 1) for picture in (*scene(0, 5), *small)]
    assert not any(isinstance(entry, Cut) for entry in with_cuts(seen(mixed), 6.0))


def test_no_shot_spans_a_cut(tmp_path):
    pictures = np.concatenate([scene(0, 20), scene(1, 15), scene(2, 5), scene(3, 30)])
    make_video(tmp_path / "in" / "a.mp4", pictures, 10)
    spec = Spec(side=32, fps=10.0)
    summary = prepare(tmp_path / "in", tmp_path / "out", spec, progress=False, workers=1)
    assert read_index(tmp_path / "out").frames.tolist() == [20, 15, 30]
    assert "3 cuts found, which no shot spans" in str(summary)
    assert summary.left_out_seconds == 0.5
