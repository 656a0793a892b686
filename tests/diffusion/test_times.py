"""Times follow their published densities, cover them evenly, and are corrected exactly."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma
from stunet.diffusion.times import QUANTILES, Times, shift_times, stratified_times
from stunet.errors import UserError

SHAPE = (20_000, 4, 8, 8, 3)
KEY = jax.random.key(0)

# Name -> cumulative distribution, by the definition of the random variable.
CDFS = {
    "uniform": lambda t: t,
    "logit_normal": lambda t: scipy.stats.norm.cdf(np.log(t / (1 - t)), -0.5, 0.8),
    # The integral of the paper's density 2 / (pi (1 - 2 t + 2 t^2)).
    "cosmap": lambda t: 2 / np.pi * (np.arctan(2 * t - 1) + np.pi / 4),
}


def draw(name, **changes):
    times = Times(name, mean=-0.5, std=0.8, **changes)
    return times.draw(KEY, SHAPE)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_stratified_times_are_evenly_spaced(batch):
    t = stratified_times(jax.random.key(3), batch)
    assert np.all((t >= 0) & (t < 1))
    gaps = np.diff(np.sort(t), append=np.min(t) + 1)
    np.testing.assert_allclose(gaps, 1 / batch, atol=1e-6)


def test_each_stratified_time_is_uniform_by_itself():
    keys = jax.random.split(jax.random.key(4), 4000)
    t = np.asarray(jax.vmap(lambda key: stratified_times(key, 3))(keys))
    quartiles = np.percentile(t, [25, 50, 75], axis=0)
    np.testing.assert_allclose(
        quartiles, np.array([[0.25], [0.5], [0.75]]) * [[1, 1, 1]], atol=0.03
    )


@pytest.mark.parametrize("name", QUANTILES)
def test_times_have_their_published_distribution(name):
    t, weight = draw(name)
    assert weight is None
    ranks = np.sort(CDFS[name](np.asarray(t, np.float64)))
    # Stratified: every quantile is hit to within one of the batch's strata.
    np.testing.assert_allclose(ranks, (np.arange(len(t)) + 0.5) / len(t), atol=2 / len(t))


@pytest.mark.parametrize("name", QUANTILES)
@pytest.mark.parametrize("reference", [0, 64])
def test_weights_are_the_inverse_of_the_density(name, reference):
    t, weight = draw(name, reference=reference, corrected=True)
    t, m = np.asarray(t, np.float64), math.sqrt(256 / 64) if reference else 1.0
    inside = (t > 0.05) & (t < 0.95)

    def cdf(t):
        return CDFS[name](t / (m - (m - 1) * t))

    density = (cdf(t[inside] + 1e-4) - cdf(t[inside] - 1e-4)) / 2e-4
    np.testing.assert_allclose(weight[inside] * density, 1.0, rtol=2e-3)


@pytest.mark.parametrize("name", QUANTILES)
@pytest.mark.parametrize("reference", [0, 64])
def test_a_corrected_loss_is_that_of_uniform_times(name, reference):
    # A wide logit-normal: a narrow one draws so few times near 0 and 1 that the mean is rough.
    times = Times(name, mean=-0.5, std=2.0, reference=reference, corrected=True)
    t, weight = times.draw(KEY, SHAPE)
    np.testing.assert_allclose(np.mean(weight), 1.0, atol=5e-3)
    np.testing.assert_allclose(np.mean(weight * np.cos(3 * t)), np.sin(3) / 3, atol=5e-3)


def test_a_clip_of_more_pixels_sees_more_noise():
    schedule = NoiseSchedule("flow", log_snr_min=-30.0, log_snr_max=30.0)
    plain, _ = Times("cosmap").draw(KEY, SHAPE)
    shifted, _ = Times("cosmap", reference=64).draw(KEY, SHAPE)
    inside = (plain > 0.01) & (plain < 0.99)
    ratio = [sigma / alpha for alpha, sigma in map(alpha_sigma, map(schedule, (plain, shifted)))]
    # 4 * 8 * 8 pixels are 4 times the reference, so the noise is twice as large.
    np.testing.assert_allclose((ratio[1] / ratio[0])[inside], 2.0, rtol=1e-3)
    np.testing.assert_allclose(shift_times(plain, 2.0), shifted, rtol=1e-5)


def test_cosmap_gives_flow_the_noise_levels_of_the_cosine_schedule():
    bounds = dict(log_snr_min=-30.0, log_snr_max=30.0)
    t, _ = Times("cosmap").draw(KEY, SHAPE)
    inside = (t > 0.01) & (t < 0.99)
    u = stratified_times(KEY, len(t))
    levels = NoiseSchedule("flow", **bounds)(t), NoiseSchedule("cosine", **bounds)(u)
    np.testing.assert_allclose(levels[0][inside], levels[1][inside], atol=2e-3)


def test_edm_draws_a_normal_log_sigma():
    """On the straight path, t / (1 - t) is EDM's sigma, whose logarithm is N(-1.2, 1.2^2)."""
    t, _ = Times("logit_normal", mean=-1.2, std=1.2).draw(KEY, SHAPE)
    log_snr = NoiseSchedule("flow", log_snr_min=-30.0, log_snr_max=30.0)(t)
    np.testing.assert_allclose(np.mean(-log_snr / 2), -1.2, atol=2e-3)
    np.testing.assert_allclose(np.std(-log_snr / 2), 1.2, atol=5e-3)


@pytest.mark.parametrize("name", QUANTILES)
def test_times_and_weights_are_finite_whatever_is_drawn(name):
    times = Times(name, reference=1, corrected=True)
    for u in (0.0, 1 - 2**-24):
        t, weight = jax.jvp(
            lambda u: times._quantile(u, SHAPE), (jnp.float32(u),), (jnp.float32(1.0),)
        )
        assert 0 <= t <= 1
        assert np.isfinite(weight)


def test_the_default_is_stratified_and_uniform():
    t, weight = Times().draw(KEY, SHAPE)
    np.testing.assert_array_equal(t, stratified_times(KEY, len(t)))
    assert weight is None


def test_the_error_for_an_unknown_sampling_names_the_mistake():
    with pytest.raises(UserError, match="unknown time sampling 'cosmop'; did you mean 'cosmap'"):
        Times("cosmop")
