"""Each motion of changing velocity is recognised, and a clip that breaks it is not."""

import numpy as np
import pytest
from scenes import FRAMES, FREE_KINDS, Scene

from stunet.evaluate import coherence, tracking

# Frames of the second window, with the keyframes at its ends.
STRIDE = 5
WINDOW = slice(STRIDE, 2 * STRIDE + 1)


def measure(scene, clips=None, **options):
    options = {"shapes": scene.shapes, "truth": scene.truth} | options
    return coherence.measure(scene.clips if clips is None else clips, scene.stage, **options)


def around(offset, stage):
    """Returns the shortest offset, over the edges that the stage lets objects pass."""
    extents = np.array([stage.height, stage.width])
    return offset - stage.wraps * extents * np.round(offset / extents)


def mirrored(scene):
    """Draws the second window mirrored at the line between its keyframes.

    On a torus, an object that moves evenly goes to the second keyframe the other way round.
    """
    positions, stage = scene.truth.copy(), scene.stage
    path = positions[:, :, WINDOW]
    path = path[:, :, :1] + around(np.diff(path, axis=2, prepend=path[:, :, :1]), stage).cumsum(2)
    share = np.arange(STRIDE + 1)[:, None] / STRIDE
    line = path[:, :, :1] + share * (path[:, :, -1:] - path[:, :, :1])
    positions[:, :, WINDOW] = 2 * line - path
    if stage.motion == "turn":
        extents = np.array([stage.height, stage.width])
        moved = path[:, :, -1:] - path[:, :, :1]
        other = moved - np.where(np.abs(moved) > 0.5, np.sign(moved), 0) * extents
        positions[:, :, WINDOW] = (path[:, :, :1] + share * other) % extents
    changed = np.linalg.norm(around(positions - scene.truth, stage), axis=-1).max((1, 2))
    return scene.at(positions), changed


@pytest.mark.parametrize(("motion", "height"), FREE_KINDS)
def test_true_clips_are_coherent_and_near_their_true_path(motion, height):
    scene = Scene(motion, height, num=40)
    found = measure(scene)
    assert found["coherent"].all()
    assert found["deviation"].max() < 0.5
    assert found["speed_error"].max() < 0.2
    assert found["faithful"].all()
    assert found["jump"].max() < 0.3
    assert found["identity_drift"].max() < 0.1
    # These assume a constant speed.
    assert not {"period_drift", "phase_drift"} & found.keys()


@pytest.mark.parametrize(("motion", "height"), FREE_KINDS)
def test_frozen_clips_have_no_speed_and_shuffled_clips_are_not_coherent(motion, height):
    scene = Scene(motion, height, num=20)
    frozen = measure(scene, np.repeat(scene.clips[:, :1], FRAMES, axis=1), truth=None)
    assert frozen["coherent"].all()
    assert not frozen["faithful"].any()
    assert frozen["speed"].max() < 0.01
    np.testing.assert_allclose(frozen["speed_error"], scene.stage.speeds[0])
    shuffled = scene.clips[:, np.random.default_rng(0).permutation(FRAMES)]
    assert measure(scene, shuffled)["coherent"].mean() < 0.1


@pytest.mark.parametrize(("motion", "height"), FREE_KINDS)
def test_windows_that_agree_at_keyframes_alone_are_not_coherent(motion, height):
    scene = Scene(motion, height, num=40, period=10.0)
    clips, changed = mirrored(scene)
    found = measure(scene, clips)
    np.testing.assert_array_equal(clips[:, [5, 10]], scene.clips[:, [5, 10]])
    assert (changed > 2).sum() >= 15
    # On one axis, an object that turns in the window may as well turn at one of its ends.
    most = 0.5 if (motion, height) == ("turn", 1) else 0.15
    assert found["coherent"][changed > 2].mean() <= most


@pytest.mark.parametrize("height", [16, 1])
def test_an_object_may_turn_once_and_not_twice(height):
    scene = Scene("turn", height, num=40)
    turns_at = np.array([m.turns_at for (m,) in scene.movers])
    fit = coherence.unroll(scene.truth, scene.stage)
    before, after = np.split(fit.velocity[:, 0], 2, axis=-1)
    np.testing.assert_allclose(before, np.diff(fit.distance[:, 0], axis=1)[:, 0], atol=1e-9)
    np.testing.assert_allclose(after, np.diff(fit.distance[:, 0], axis=1)[:, -1], atol=1e-9)
    # Three frames after its turn, the object stops.
    twice = scene.truth.copy()
    for i, frame in enumerate(turns_at + 3):
        twice[i, :, frame:] = twice[i, :, frame : frame + 1]
    found = measure(scene, scene.at(twice))["coherent"]
    assert not found[turns_at < FRAMES - 6].any()


def test_fits_find_what_the_data_were_drawn_from():
    for height in (16, 1):
        falling = Scene("fall", height, num=40)
        paths = coherence.unroll(tracking.track(falling.clips, falling.stage), falling.stage)
        (speeds, drifts) = np.moveaxis(paths.velocity[:, 0], -1, 0)
        movers = [m for (m,) in falling.movers]
        signs = [1 if height == 16 or m.direction == "right" else -1 for m in movers]
        expected = np.array([m.speed for m in movers]) * signs
        np.testing.assert_allclose(speeds, expected, rtol=0.1, atol=0.05)
        np.testing.assert_allclose(drifts, [m.drift for m in movers], atol=0.05)
        swinging = Scene("pendulum", height, num=40)
        paths = coherence.unroll(tracking.track(swinging.clips, swinging.stage), swinging.stage)
        expected = [m.speed for (m,) in swinging.movers]
        np.testing.assert_allclose(paths.velocity[:, 0, 0], expected, rtol=0.1)


def test_a_velocity_counts_as_right_if_captions_allow_it():
    scene = Scene("glide", period=0.0, speed=2.0, spread=0.0)
    slower = scene.drawn(lambda m: 1.2 * np.arange(FRAMES))
    back = scene.drawn(lambda m: -1.2 * np.arange(FRAMES))
    known = measure(scene, slower)["velocity_error"]
    np.testing.assert_allclose(known, 0.8, atol=0.05)
    factors = np.tile([0.5, 1.5], (len(slower), 1, 1))
    assert measure(scene, slower, factors=factors)["velocity_error"].max() < 0.05
    np.testing.assert_allclose(
        measure(scene, back, factors=factors)["velocity_error"], 2.2, atol=0.05
    )
    np.testing.assert_allclose(
        measure(scene, scene.clips, factors=factors + 1)["velocity_error"], 1, atol=0.05
    )
