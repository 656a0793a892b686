"""Averages of segments solve MultiDiffusion's least-squares problem; segments cover the clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion import multidiffusion, samplers
from stunet.diffusion.schedules import NoiseSchedule
from stunet.errors import UserError

RNG = np.random.default_rng(0)
CASES = [(16, 16, 2), (17, 16, 2), (30, 16, 2), (160, 16, 2), (32, 16, 0), (33, 16, 0), (9, 4, 3)]


def merged(predictions, segments, share):
    total = np.zeros((segments.frames, *predictions.shape[2:]), np.float32)
    for i, start in enumerate(segments.starts):  # One segment at a time.
        multidiffusion.add(total, predictions[i : i + 1], [start], share[i : i + 1])
    return total


@pytest.mark.parametrize("own_weights", [False, True], ids=["shared weights", "own weights"])
@pytest.mark.parametrize("case", CASES)
def test_the_average_solves_the_least_squares_problem(case, own_weights):
    """The problem is min sum w (J'[start + k] - Phi[k])^2, solved directly.

    Each prediction of a frame is one row, scaled by the root of its weight.
    """
    segments = multidiffusion.cover(*case)
    n, length = len(segments.starts), segments.length
    weights = RNG.uniform(0.1, 3, (n, length) if own_weights else length)
    predictions = RNG.normal(size=(n, length, 2, 3)).astype(np.float32)
    roots = np.sqrt(np.broadcast_to(weights, (n, length)))
    rows, values = [], []
    for i, start in enumerate(segments.starts):
        for k in range(length):
            rows.append(roots[i, k] * (np.arange(segments.frames) == start + k))
            values.append(roots[i, k] * predictions[i, k].ravel())
    solved = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    found = merged(predictions, segments, multidiffusion.normalise_weights(segments, weights))
    np.testing.assert_allclose(found, solved.reshape(found.shape), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_segments_cover_every_frame_overlap_as_asked_and_end_with_the_clip(case):
    frames, length, overlap = case
    segments = multidiffusion.cover(*case)
    starts = np.array(segments.starts)
    covered = np.unique(starts[:, None] + np.arange(length))
    np.testing.assert_array_equal(covered, np.arange(frames))
    shared = length - np.diff(starts)
    assert (shared[:-1] == overlap).all()
    assert (shared[-1:] >= overlap).all()
    assert (np.diff(starts) > 0).all()
    # One segment fewer would leave frames out.
    assert (len(starts) - 1) * (length - overlap) + overlap < frames


@pytest.mark.parametrize("name", multidiffusion.WEIGHTS)
def test_equal_predictions_are_returned_and_single_ones_bit_for_bit(name):
    clip = RNG.normal(size=(30, 2, 2, 1)).astype(np.float32)
    segments = multidiffusion.cover(30, 16, 2)
    share = multidiffusion.normalise_weights(segments, multidiffusion.frame_weights(segments, name))
    predictions = np.stack([clip[s : s + 16] for s in segments.starts])
    found = merged(predictions, segments, share)
    np.testing.assert_allclose(found, clip, atol=1e-6)
    single = np.r_[:14, 16:30]  # frames that one segment alone holds
    np.testing.assert_array_equal(found[single], clip[single])


def test_a_ramp_fades_one_segment_into_the_next():
    segments = multidiffusion.cover(10, 6, 2)
    share = multidiffusion.normalise_weights(
        segments, multidiffusion.frame_weights(segments, "ramp")
    )
    np.testing.assert_allclose(share[0], [1, 1, 1, 1, 2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(share[1], share[0, ::-1], atol=1e-6)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_averaged_estimates_update_to_the_average_of_updates(sampler):
    """The step of the averaged estimate is the average of the segments' steps."""
    x, before, *rest = jnp.asarray(RNG.normal(size=(7, 1, 4)), jnp.float32)
    estimates, kept = rest[:3], tuple(rest[3:][: samplers.SAMPLERS[sampler].num_kept])

    def update(x0):
        step = samplers.make_step(
            lambda x, t: x0,
            jax.random.key(1),
            schedule=NoiseSchedule("cosine", 1.0, -15.0, 15.0),
            sampler=sampler,
            steps=4,
        )
        return step(samplers.SamplerState(x, before, kept), 2).x

    weights = np.array([0.2, 0.3, 0.5], np.float32)
    mean = sum(w * x0 for w, x0 in zip(weights, estimates, strict=True))
    expected = sum(w * update(x0) for w, x0 in zip(weights, estimates, strict=True))
    np.testing.assert_allclose(update(mean), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ((20, 4, 4), "overlap is 4 frames; segments of 4 overlap by 0 to 3"),
        ((20, 4, -1), "overlap is -1 frames"),
        ((3, 4, 2), "clip has 3 frames, fewer than a segment's 4"),
    ],
)
def test_errors_say_why_a_clip_cannot_be_covered(case, message):
    with pytest.raises(UserError, match=message):
        multidiffusion.cover(*case)


def test_the_error_for_unknown_weights_lists_the_choices():
    with pytest.raises(UserError, match=r"weights .*'hann'.*ramp, uniform"):
        multidiffusion.frame_weights(multidiffusion.cover(4, 4, 0), "hann")
