"""Losses are the same for every parametrisation; times cover 0..1 evenly and are uniform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion.loss import WEIGHTINGS, clip_loss, min_snr, stratified_times
from stunet.diffusion.prediction import PREDICTIONS, target
from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma
from stunet.errors import UserError

SCHEDULE = NoiseSchedule()
SHAPE = (6, 2, 4, 4, 3)
RNG = np.random.default_rng(0)
X0 = jnp.asarray(RNG.uniform(-1.0, 1.0, SHAPE), jnp.float32)
NOISE = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
T = jnp.array([0.05, 0.2, 0.4, 0.6, 0.8, 0.95])


def network(prediction, x_t, t):
    """Returns the output of the denoiser x0_hat = tanh(x_t) in a parametrisation."""
    log_snr = SCHEDULE(t)
    alpha, sigma = (a.reshape(-1, 1, 1, 1, 1) for a in alpha_sigma(log_snr))
    x0 = jnp.tanh(x_t)
    return target(prediction, x0, (x_t - alpha * x0) / sigma, log_snr)


def loss(prediction, weighting, **kwargs):
    predict = functools.partial(network, prediction)
    kwargs = {"schedule": SCHEDULE, "prediction": prediction, "weighting": weighting, **kwargs}
    return clip_loss(predict, X0, T, NOISE, **kwargs)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_same_loss_for_every_prediction(gamma):
    losses = [loss(p, "min_snr", min_snr_gamma=gamma) for p in PREDICTIONS]
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-3)


def test_min_snr_weighs_the_error_of_x0_by_the_snr_up_to_gamma():
    log_snr = jnp.log(jnp.array([0.1, 1.0, 4.9, 5.1, 1000.0]))
    np.testing.assert_allclose(min_snr(log_snr, "x0"), [0.1, 1.0, 4.9, 5.0, 5.0], rtol=1e-5)
    assert np.all(min_snr(log_snr, "eps") <= 1.0)
    infinite_gamma = min_snr(log_snr, "eps", float("inf"))
    np.testing.assert_allclose(infinite_gamma, 1.0, rtol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_perfect_network_has_no_loss(prediction, weighting):
    losses = clip_loss(
        lambda x_t, t: target(prediction, X0, NOISE, SCHEDULE(t)),
        *(X0, T, NOISE),
        schedule=SCHEDULE,
        prediction=prediction,
        weighting=weighting,
    )
    np.testing.assert_array_equal(losses, 0.0)


def test_the_eps_loss_of_a_zero_network_is_the_mean_square_of_the_noise():
    losses = clip_loss(
        lambda x_t, t: jnp.zeros(x_t.shape, jnp.bfloat16),
        *(X0, T, NOISE),
        schedule=SCHEDULE,
        prediction="eps",
        weighting="uniform",
    )
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, np.mean(np.square(NOISE), axis=(1, 2, 3, 4)), rtol=1e-5)


def test_the_loss_of_a_clip_does_not_depend_on_other_clips():
    alone = clip_loss(
        functools.partial(network, "v"),
        *(X0[2:3], T[2:3], NOISE[2:3]),
        schedule=SCHEDULE,
        prediction="v",
        weighting="min_snr",
    )
    np.testing.assert_allclose(loss("v", "min_snr")[2:3], alone, rtol=1e-6)


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


def test_errors_name_unknown_choices():
    with pytest.raises(UserError, match="unknown loss weighting 'minsnr'; did you mean 'min_snr'"):
        loss("v", "minsnr")
    with pytest.raises(UserError, match="unknown prediction 'x'"):
        clip_loss(
            lambda x_t, t: x_t,
            *(X0, T, NOISE),
            schedule=SCHEDULE,
            prediction="x",
            weighting="uniform",
        )
