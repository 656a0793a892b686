"""Tracking finds the true positions of objects in drawn clips."""

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
    # The position of a hidden object follows from its motion, to about a pixel.
    assert off.max() < (1.2 if motion == "cross" else 0.1)


@pytest.mark.parametrize(("motion", "height"), [("glide", 16), ("glide", 1), ("rotate", 16)])
def test_noise_changes_positions_little(motion, height):
    scene = Scene(motion, height, num=20)
    noisy = scene.clips + np.random.default_rng(0).normal(0, 0.05, scene.clips.shape)
    off = distances(tracking.track(noisy, scene.stage), scene.truth, scene.stage)
    assert np.quantile(off, 0.99) < 0.35


def test_a_grey_background_and_colours_do_not_change_positions():
    scene = Scene("glide")
    grey = np.repeat(0.3 + 0.6 * scene.clips, 3, axis=-1)
    np.testing.assert_allclose(tracking.centroids(grey), tracking.centroids(scene.clips), atol=1e-3)


def test_objects_are_told_apart_by_their_shapes():
    scene = Scene("cross")
    swapped = [shapes[::-1] for shapes in scene.shapes]
    one = tracking.pairs(scene.clips, scene.stage, scene.shapes)
    other = tracking.pairs(scene.clips, scene.stage, swapped)
    # Rounding decides between spots that fit equally well, and differs with the order.
    np.testing.assert_allclose(one, other[:, ::-1], atol=0.05)


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_similarity_is_high_until_an_object_changes(motion, height):
    scene = Scene(motion, height, frames=12)
    positions = tracking.track(scene.clips, scene.stage, scene.shapes)
    similarity = tracking.similarity(scene.clips, positions, scene.stage)
    assert np.nanmin(similarity) > 0.9
    # From the seventh frame on, noise replaces the objects.
    gone = scene.clips.copy()
    gone[:, 6:] = np.random.default_rng(0).uniform(-1, 1, gone[:, 6:].shape)
    similarity = tracking.similarity(gone, positions, scene.stage)
    assert np.nanmean(similarity[:, :, :6]) > 0.9 > 0.5 > np.nanmean(similarity[:, :, 6:])
