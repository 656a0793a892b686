"""The Fréchet distance agrees with the formula with matrix square roots, and with closed forms."""

import numpy as np
import pytest
from scipy import linalg

from stunet.errors import UserError
from stunet.evaluate.frechet import MIN_SAMPLES, frechet_distance


def exactly(samples, mean, covariance_root):
    """Moves samples so that they have this mean and covariance, to rounding."""
    centred = samples - samples.mean(0)
    whitened = centred @ linalg.inv(linalg.cholesky(np.cov(centred, rowvar=False)))
    return whitened @ covariance_root + mean


def by_matrix_square_root(one, other):
    c1, c2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(c1 @ c2)
    return ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real)


def test_the_distance_is_the_formula_with_scipys_matrix_square_root():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 24)) @ rng.normal(size=(24, 24))
    other = rng.normal(size=(150, 24)) @ rng.normal(size=(24, 24)) + 0.3
    expected = by_matrix_square_root(one, other)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_commuting_covariances_give_a_distance_of_means_and_deviations():
    rng = np.random.default_rng(1)
    turn = linalg.qr(rng.normal(size=(6, 6)))[0]
    deviations = rng.uniform(0.1, 3, size=(2, 6))
    means = rng.normal(size=(2, 6))
    one, other = (
        exactly(rng.normal(size=(50, 6)), mean, np.diag(deviation) @ turn)
        for mean, deviation in zip(means, deviations, strict=True)
    )
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_features_give_the_exact_distance():
    rng = np.random.default_rng(2)
    one = rng.normal(size=(MIN_SAMPLES, 400)).astype(np.float32)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    # A shift is exact, although there are directions in which nothing varies.
    shift = np.full(400, 0.5)
    assert frechet_distance(one, one + shift) == pytest.approx(100, rel=1e-6)
    # For sets that span different dimensions, the traces add up.
    left, right = np.zeros((20, 60)), np.zeros((20, 60))
    left[:, :30], right[:, 30:] = rng.normal(size=(2, 20, 30))
    spread = sum(np.trace(np.cov(x, rowvar=False)) for x in (left, right))
    apart = ((left.mean(0) - right.mean(0)) ** 2).sum()
    assert frechet_distance(left, right) == pytest.approx(apart + spread, rel=1e-9)


def test_float32_features_far_from_zero_keep_their_precision():
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 300, 8))
    expected = by_matrix_square_root(one, other)
    far = [(x + 1000).astype(np.float32) for x in (one, other)]
    assert frechet_distance(*far) == pytest.approx(expected, rel=1e-2)


def test_small_sets_and_values_that_are_not_finite_are_refused():
    samples = np.zeros((MIN_SAMPLES, 4))
    with pytest.raises(UserError, match="16 samples of each set, and one has 15"):
        frechet_distance(samples, samples[1:])
    broken = samples.copy()
    broken[3, 2] = np.nan
    with pytest.raises(UserError, match="finite"):
        frechet_distance(samples, broken)
