"""Metric groups: how lists are parsed, and which Fréchet distances are called FVD."""

import sys

import numpy as np
import pytest

from stunet.errors import UserError
from stunet.evaluate import groups, pixels
from stunet.evaluate.scene import Scene


def test_a_group_brings_its_companions():
    assert groups.parse("fvd") == ("flow", "fvd")
    assert groups.parse("fvd, coherence,") == ("coherence", "flow", "fvd")
    assert groups.parse(groups.DEFAULT) == ("coherence", "pixels", "flow")
    with pytest.raises(UserError, match="unknown metric 'fdv'; did you mean 'fvd'"):
        groups.parse("coherence,fdv")


@pytest.mark.parametrize(
    ("clips", "references", "shape", "name", "title"),
    [
        (2048, 2048, (16, 128, 128), "fvd", "FVD of 16 frames, 2,048 clips at 128x128 enlarged"),
        (2048, 9537, (16, 64, 64), "fvd", "FVD of 16 frames, 2,048 clips against 9,537 at 64x64"),
        (2048, 2048, (80, 256, 256), "fvd", "FVD of 80 frames, 2,048 clips at 256x256 resized"),
        (2047, 2048, (16, 128, 128), "frechet_i3d", "2,047 clips against 2,048"),
        (2048, 2047, (16, 128, 128), "frechet_i3d", "2,048 clips against 2,047"),
        (2048, 2048, (15, 128, 128), "frechet_i3d", "2,048 clips at 128x128"),
        (2048, 2048, (16, 128, 32), "frechet_i3d", "2,048 clips at 128x32"),
        (64, 64, (16, 224, 224), "frechet_i3d", "Fréchet distance of I3D logits, 64 clips at 224"),
        (64, 64, (16, 32, 32), "frechet_i3d", "64 clips at 32x32 enlarged to 224x224"),
    ],
)
def test_few_or_small_clips_have_no_fvd(clips, references, shape, name, title):
    found_name, found_title = groups.frechet_name(clips, references, shape)
    assert found_name == name
    assert title in found_title
    assert ("FVD" in found_title) == (name == "fvd")


@pytest.mark.parametrize("name", ["pixels", "flow"])
def test_without_opencv_clips_with_a_flow_are_refused(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    groups.METRIC_GROUPS[name].check((16, 4, 16))
    with pytest.raises(UserError, match="optical flow needs OpenCV: pip install"):
        groups.METRIC_GROUPS[name].check((16, 8, 16))


def test_stored_histograms_give_the_distance_of_whole_sets():
    rng = np.random.default_rng(0)
    one, other = (rng.normal(0, 0.3, (n, 4, 16, 16, 1)).cumsum(1) for n in (3, 5))
    whole = pixels.flow_distance(pixels.farneback(one), pixels.farneback(other))
    flow = groups.METRIC_GROUPS["flow"]
    measured = [flow.measure(clips, Scene(), ()) for clips in (one, other)]
    found = flow.compare(*measured, (4, 16, 16))
    assert found == {"flow_distance": whole[0], "flow_change_distance": whole[1]}
    # Measuring in batches gives the same distance.
    parts = [flow.measure(one[rows], Scene(), ()) for rows in (slice(2), slice(2, None))]
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    assert flow.compare(joined, measured[1], (4, 16, 16)) == found
