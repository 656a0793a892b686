"""Tracking finds on rendered clips what the truth says."""

import numpy as np
import pytest
from scenes import KINDS, Scene

from stunet.evaluate import tracking


def distances(found, truth, stage):
    extents = np.array([stage.height, stage.width])
    off = (found - truth + extents / 2) % extents - extents / 2
    return np.linalg.norm(off, axis=-1)


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_objects_are_found_to_a_fraction_of_a_pixel(motion, height):
    scene = Scene(motion, height, num=30)
    found = tracking.track(scene.clips, scene.stage, scene.shapes)
    off = distances(found, scene.truth, scene.stage)
    assert off.mean() < 0.03
    # An object that another hides is where its motion leads, to a pixel.
    assert off.max() < (1.2 if motion == "cross" else 0.1)


@pytest.mark.parametrize(("motion", "height"), [("glide", 16), ("glide", 1), ("rotate", 16)])
def test_noise_moves_what_is_found_by_little(motion, height):
    scene = Scene(motion, height, num=20)
    noisy = scene.clips + np.random.default_rng(0).normal(0, 0.05, scene.clips.shape)
    off = distances(tracking.track(noisy, scene.stage), scene.truth, scene.stage)
    assert np.quantile(off, 0.99) < 0.35


def test_a_grey_background_and_colours_change_nothing():
    scene = Scene("glide")
    grey = np.repeat(0.3 + 0.6 * scene.clips, 3, axis=-1)
    np.testing.assert_allclose(tracking.centroids(grey), tracking.centroids(scene.clips), atol=1e-3)


def test_which_object_is_which_is_told_by_shapes():
    scene = Scene("cross")
    swapped = [shapes[::-1] for shapes in scene.shapes]
    one = tracking.pairs(scene.clips, scene.stage, scene.shapes)
    other = tracking.pairs(scene.clips, scene.stage, swapped)
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-4)


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_what_keeps_its_look_is_like_itself_and_what_changes_is_not(motion, height):
    scene = Scene(motion, height, frames=12)
    positions = tracking.track(scene.clips, scene.stage, scene.shapes)
    alike = tracking.likeness(scene.clips, positions, scene.stage)
    assert np.nanmin(alike) > 0.9
    # The same positions, but nothing there from the seventh frame on.
    gone = scene.clips.copy()
    gone[:, 6:] = np.random.default_rng(0).uniform(-1, 1, gone[:, 6:].shape)
    alike = tracking.likeness(gone, positions, scene.stage)
    assert np.nanmean(alike[:, :, :6]) > 0.9 > 0.5 > np.nanmean(alike[:, :, 6:])
