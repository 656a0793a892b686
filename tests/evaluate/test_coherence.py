"""True clips are coherent, and each way to break a clip shows in the right metric."""

import numpy as np
import pytest
from scenes import FRAMES, KINDS, Scene

from stunet.data.synthetic.motions import Motions
from stunet.data.synthetic.stage import Stage
from stunet.evaluate import coherence
from stunet.evaluate.steady_paths import Paths

WINDOW = 4
BORDERS = tuple(range(WINDOW, FRAMES, WINDOW))


def measure(scene, clips=None, **options):
    clips = scene.clips if clips is None else clips
    options = {"shapes": scene.shapes, "truth": scene.truth} | options
    return coherence.measure(clips, scene.stage, **options)


def windows(to_borders=1.0, inside=1.0):
    """Returns distances in multiples of the speed, with other steps into windows than inside."""
    rates = np.full(FRAMES, inside)
    rates[0] = 0
    rates[list(BORDERS)] = to_borders
    return rates.cumsum()


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_true_clips_are_coherent_and_have_their_true_speed(motion, height):
    scene = Scene(motion, height)
    found = measure(scene)
    speeds = np.array([np.mean([m.speed for m in movers]) for movers in scene.movers])
    for name in ("speed", "step_length", "true_speed"):
        np.testing.assert_allclose(found[name], speeds, atol=0.05)
    assert found["coherent"].all()
    assert found["faithful"].all()
    assert found["velocity_error"].max() < 0.1
    assert found["period_drift"].max() < 0.05
    assert found["phase_drift"].max() < 0.05
    assert found["jump"].max() < 0.3
    assert found["identity_drift"].max() < 0.05


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_shuffled_clips_are_not_coherent(motion, height):
    scene = Scene(motion, height)
    shuffled = scene.clips[:, np.random.default_rng(0).permutation(FRAMES)]
    before, after = measure(scene), measure(scene, shuffled)
    assert after["coherent"].mean() == 0
    assert after["faithful"].mean() == 0
    assert (after["jump"] > 5 * before["jump"]).all()
    assert (after["phase_drift"] > 0.1).all()


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_a_frozen_clip_is_coherent_but_has_no_speed(motion, height):
    scene = Scene(motion, height)
    found = measure(scene, np.repeat(scene.clips[:, :1], FRAMES, axis=1))
    assert found["coherent"].all()
    assert found["speed"].max() < 0.01
    assert found["faithful"].mean() == 0
    np.testing.assert_allclose(found["speed_error"], scene.stage.speeds[0], atol=1.2)
    assert np.isnan(found["period_drift"]).all()


@pytest.mark.parametrize(("motion", "height"), [k for k in KINDS if k[0] != "bounce"])
def test_a_clip_played_backwards_is_coherent_but_not_faithful(motion, height):
    scene = Scene(motion, height)
    forwards, backwards = measure(scene), measure(scene, scene.clips[:, ::-1])
    assert backwards["coherent"].all()
    assert not backwards["faithful"].any()
    assert (backwards["velocity_error"] > 1.9 * forwards["speed"]).all()
    np.testing.assert_allclose(backwards["speed"], forwards["speed"], atol=0.05)
    unknown = measure(scene, scene.clips[:, ::-1], truth=None)
    assert unknown["faithful"].all()
    assert "velocity_error" not in unknown


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_windows_that_move_the_other_way_are_not_coherent(motion, height):
    scene = Scene(motion, height)
    sign = np.where((np.arange(1, FRAMES) - 1) // WINDOW % 2, -1, 1)
    distance = np.concatenate([[0], sign.cumsum()])
    found = measure(scene, scene.drawn(lambda m: m.speed * distance), borders=BORDERS)
    assert found["coherent"].mean() < 0.1
    # If one object hides the other, or a ball may have met a wall, the tracker assumes steady
    # motion. Some of the change at a border then counts elsewhere.
    least = {"glide": 20, "rotate": 20, "cross": 3, "bounce": 2}[motion]
    assert found["border_jump"].mean() > least * found["jump"].mean()
    assert found["phase_drift"].mean() > 0.08


@pytest.mark.parametrize(("motion", "height"), [("glide", 16), ("cross", 1), ("rotate", 16)])
def test_steps_that_go_opposite_ways_cancel_in_the_speed_but_not_in_the_step_length(motion, height):
    scene = Scene(motion, height, frames=15)
    to_and_fro = np.concatenate([np.arange(8), np.arange(6, -1, -1)])
    found = measure(scene, scene.drawn(lambda m: m.speed * to_and_fro))
    assert np.median(found["speed"]) < 0.1
    np.testing.assert_allclose(np.median(found["step_length"] / found["true_speed"]), 1, atol=0.05)
    assert "true_speed" not in measure(scene, truth=None)


def test_the_true_speed_is_left_out_if_captions_leave_open_all_speeds():
    scene = Scene("glide", 1, num=2, spread=0.0, octaves=0.5)
    slowest, fastest = scene.stage.factors
    for factors, is_told in (((slowest, fastest), False), ((1.0, fastest), True)):
        found = measure(scene, factors=np.tile(factors, (2, 1, 1)))
        assert ("true_speed" in found) == is_told
        assert "velocity_error" in found


@pytest.mark.parametrize(("motion", "height"), [("glide", 1), ("glide", 16), ("rotate", 16)])
def test_windows_with_a_shifted_phase_jump_at_their_borders_only(motion, height):
    scene = Scene(motion, height)
    distance = windows(to_borders=2.5)
    found = measure(scene, scene.drawn(lambda m: m.speed * distance), borders=BORDERS)
    assert not found["coherent"].any()
    # Both changes of velocity at a border are 1.5 times the speed.
    speed = np.array([np.mean([m.speed for m in movers]) for movers in scene.movers])
    np.testing.assert_allclose(found["border_jump"], 1.5 * speed, rtol=0.1)
    assert found["jump"].max() < 0.35


def test_motion_aliased_by_keyframes_shows_as_a_speed_error():
    # The period is 16 / 3 frames. Keyframes 4 frames apart turn by 3 / 4, which looks like -1 / 4.
    scene = Scene("glide", 1, period=0.0, speed=3.0, spread=0.0)
    aliased = scene.drawn(lambda m: -1.0 * np.arange(FRAMES))
    np.testing.assert_array_equal(aliased[:, ::4], scene.clips[:, ::4])
    found = measure(scene, aliased, truth=None)
    assert found["coherent"].all()
    assert not found["faithful"].any()
    np.testing.assert_allclose(found["speed_error"], 2.0, atol=0.05)


def test_a_growing_period_shows_as_period_drift():
    scene = Scene("rotate", frames=FRAMES)
    # The second half moves at three quarters of the first half's speed.
    distance = np.concatenate([np.arange(8), 7.75 + 0.75 * np.arange(8)])
    found = measure(scene, scene.drawn(lambda m: m.speed * distance))
    np.testing.assert_allclose(found["period_drift"], 0.25, atol=0.02)
    steady = measure(scene)
    assert (found["phase_drift"] > 5 * steady["phase_drift"]).all()


def test_drifts_are_those_of_a_line_fitted_by_numpy():
    frames = np.arange(16.0)
    # The path is a wave of 0.2 pixels around a line.
    distance = 1.5 * frames + 0.2 * np.sin(frames)
    paths = Paths(distance[None, None, :, None], np.array([[16.0]]))
    residual = distance - np.polyval(np.polyfit(frames, distance, 1), frames)
    assert coherence.phase_drift(paths)[0] == pytest.approx(np.abs(residual).max() / 16)
    halves = [np.polyfit(frames[k], distance[k], 1)[0] for k in (slice(8), slice(8, 16))]
    expected = abs(halves[0] - halves[1]) / max(halves)
    assert coherence.period_drift(paths)[0] == pytest.approx(expected)
    opposite = Paths(np.abs(frames - 7.5)[None, None, :, None], np.array([[16.0]]))
    assert coherence.period_drift(opposite)[0] == pytest.approx(2)


def test_the_tolerance_applies_to_every_step():
    frames = np.arange(16.0)
    for slip, coherent in ((0.9, True), (1.1, False)):
        distance = 2 * frames + slip * (frames >= 6)
        paths = Paths(distance[None, None, :, None], np.array([[16.0]]))
        assert coherence.deviation(paths)[0] == pytest.approx(slip)
        assert (coherence.deviation(paths)[0] <= coherence.TOLERANCE) == coherent


@pytest.mark.parametrize("motion", ["glide", "rotate"])
def test_positions_that_are_a_little_off_are_still_steady(motion):
    source = Motions("val", Stage(motion, 16, 16, size=4.0, period=8.0), FRAMES)
    positions = np.stack([source.truth(i).positions for i in range(200)])
    off = positions + np.random.default_rng(0).normal(0, 0.2, positions.shape)
    stage = source.stage
    deviation = coherence.deviation(coherence.unroll(off, stage))
    assert np.mean(deviation <= coherence.tolerance(stage)) > 0.8


def test_paths_unroll_over_the_edges_of_a_torus():
    stage = Stage("glide", 16, 16)
    x = np.arange(20) * 3.0 % 16
    positions = np.stack([np.full(20, 5.0), x], -1)[None, None]
    paths = coherence.unroll(positions, stage)
    np.testing.assert_allclose(paths.distance[0, 0, :, 1], 3.0 * np.arange(20))
    np.testing.assert_allclose(paths.velocity, [[[0, 3.0]]])
