"""Losses are the same for every parametrisation, and the sigmoid loss for every schedule."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion.betas import BETAS
from stunet.diffusion.loss import WEIGHTINGS, clip_loss, min_snr
from stunet.diffusion.prediction import PREDICTIONS, target
from stunet.diffusion.schedules import SCHEDULES, NoiseSchedule, alpha_sigma
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


@pytest.mark.parametrize("bias", [0.0, -3.0])
def test_sigmoid_is_the_same_loss_for_every_prediction(bias):
    losses = [loss(p, "sigmoid", sigmoid_log_snr=bias) for p in PREDICTIONS]
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-3)


def expected_sigmoid_loss(schedule: NoiseSchedule, prediction: str) -> float:
    """Returns the mean loss over all times of a network whose output is 0, if the target is 1."""
    t = (jnp.arange(20_000) + 0.5) / 20_000
    x0 = jnp.full((len(t), 1, 1, 1, 1), float(prediction == "x0"))
    losses = clip_loss(
        lambda x_t, t: jnp.zeros_like(x_t),
        *(x0, t, 1 - x0),
        schedule=schedule,
        prediction=prediction,
        weighting="sigmoid",
        sigmoid_log_snr=-1.0,
    )
    return float(np.mean(losses))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_expected_sigmoid_loss_is_an_integral_over_log_snr_on_every_schedule(name):
    """For a network whose output is 0, the loss of eps is 1. So the integral has a closed form."""
    schedule = NoiseSchedule(name, log_snr_min=-8.0, log_snr_max=8.0)
    expected = np.logaddexp(0, -1.0 + 8.0) - np.logaddexp(0, -1.0 - 8.0)
    np.testing.assert_allclose(expected_sigmoid_loss(schedule, "eps"), expected, rtol=1e-3)


@pytest.mark.parametrize("name", BETAS)
def test_the_expected_sigmoid_loss_is_that_integral_on_schedules_of_betas(name):
    """Its bounds are the log-SNR of the first step and of the last one."""
    schedule = NoiseSchedule(name)
    start, end = schedule.beta_start, schedule.beta_end
    betas = {
        "linear_betas": np.linspace(start, end, 1000),
        "scaled_linear": np.linspace(start**0.5, end**0.5, 1000) ** 2,
    }[name]
    first, last = 1 - betas[0], np.prod(1 - betas)
    most, least = (np.log(signal / (1 - signal)) for signal in (first, last))
    expected = np.logaddexp(0, -1.0 - least) - np.logaddexp(0, -1.0 - most)
    np.testing.assert_allclose(expected_sigmoid_loss(schedule, "eps"), expected, rtol=3e-4)
    # In terms of x0, the integral reaches down to no signal at all.
    schedule = NoiseSchedule(name, zero_terminal_snr=True)
    expected = np.exp(-1.0) * np.logaddexp(0, most + 1.0)
    np.testing.assert_allclose(expected_sigmoid_loss(schedule, "x0"), expected, rtol=3e-4)


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
