"""Metrics of pixels and of optical flow, on clips whose motion is known."""

import numpy as np
import pytest
from scenes import Scene, scaled
from scipy import ndimage, stats

from stunet.evaluate import pixels


def panned(speed, frames=10, size=32, num=3):
    """Returns a smooth random texture that moves by (dy, dx) = (0, speed) on a torus."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(num):
        wide = ndimage.gaussian_filter(rng.normal(size=(size, size)), 2, mode="wrap")
        wide = 127 + 100 * wide / np.abs(wide).max()
        moved = [ndimage.shift(wide, (0, speed * k), mode="grid-wrap") for k in range(frames)]
        clips.append(np.stack(moved)[..., None].astype(np.uint8))
    return scaled(clips)


@pytest.mark.parametrize("speed", [0.0, 0.6, -1.5])
def test_the_flow_is_the_true_motion(speed):
    flow = pixels.farneback(panned(speed))[:, :, 8:24, 8:24]
    np.testing.assert_allclose(np.median(flow, axis=(0, 1, 2, 3)), [0, speed], atol=0.1)
    found = pixels.measure(panned(speed))
    assert found["flow"].mean() == pytest.approx(abs(speed), abs=0.3)


def test_a_frozen_clip_has_no_flow_and_a_shuffled_clip_an_unsteady_flow():
    clips = panned(1.0)
    frozen = pixels.measure(np.repeat(clips[:, :1], 10, axis=1))
    assert frozen["flow"].max() < 0.02
    assert frozen["flow_change"].max() == frozen["frame_error"].max() == 0
    real = pixels.measure(clips)
    shuffled = pixels.measure(clips[:, np.random.default_rng(0).permutation(10)])
    assert (shuffled["flow_change"] > 4 * real["flow_change"]).all()
    assert (shuffled["frame_error"] > 2 * real["frame_error"]).all()
    np.testing.assert_allclose(shuffled["detail"], real["detail"], rtol=1e-5)


def test_blur_lowers_detail():
    clips = Scene("glide").clips
    blurred = ndimage.gaussian_filter(clips, (0, 0, 1, 1, 0))
    assert (pixels.measure(blurred)["detail"] < 0.9 * pixels.measure(clips)["detail"]).all()


def test_borders_of_windows_are_measured_apart():
    clips = panned(1.0, frames=12)
    clips[:, 6:] = clips[::-1, 6:]  # From frame 6 on, each is another clip.
    clips = clips[::2]  # The middle clip was replaced by itself.
    found = pixels.measure(clips, borders=(6,))
    assert (found["border_frame_error"] > 3 * found["frame_error"]).all()
    assert (found["border_flow_change"] > 3 * found["flow_change"]).all()
    unbroken = pixels.measure(panned(1.0, frames=12), borders=(6,))
    np.testing.assert_allclose(unbroken["border_frame_error"], unbroken["frame_error"], rtol=0.3)
    assert "border_frame_error" not in pixels.measure(clips)


def test_flow_distance_is_the_earth_movers_distance():
    one, other = (pixels.farneback(panned(speed)) for speed in (0.5, 1.5))
    steady, changing = pixels.flow_distance(one, other)
    expected = stats.wasserstein_distance(
        pixels.lengths(one).ravel(), pixels.lengths(other).ravel()
    )
    assert steady == pytest.approx(expected, rel=0.02)
    assert 0.7 < steady < 1.2
    assert changing < 0.3
    assert pixels.flow_distance(one, one) == (0, 0)


def test_clips_of_a_single_row_have_no_flow():
    found = pixels.measure(Scene("glide", 1).clips)
    assert set(found) == {"frame_error", "detail"}
