"""Predictions of eps, v and x0 are consistent with one another and with x_t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion.prediction import PREDICTIONS, add_noise, target, to_eps, to_x0
from stunet.diffusion.schedules import (
    EDM_DATA_STD,
    NoiseSchedule,
    alpha_sigma,
    input_scale,
)
from stunet.errors import UserError

SHAPE = (5, 2, 3, 3, 1)
RNG = np.random.default_rng(0)
X0 = jnp.asarray(RNG.uniform(-1.0, 1.0, SHAPE), jnp.float32)
NOISE, OUTPUT = jnp.asarray(RNG.normal(size=(2, *SHAPE)), jnp.float32)
LOG_SNR = jnp.array([-8.0, -2.0, 0.0, 2.0, 8.0])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_implies_the_clip_and_the_noise(prediction):
    x_t = add_noise(X0, NOISE, LOG_SNR)
    output = target(prediction, X0, NOISE, LOG_SNR)
    np.testing.assert_allclose(to_x0(prediction, output, x_t, LOG_SNR), X0, atol=2e-5)
    np.testing.assert_allclose(to_eps(prediction, output, x_t, LOG_SNR), NOISE, atol=2e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_any_output_implies_a_clip_and_a_noise_that_mix_to_x_t(prediction):
    x_t = add_noise(X0, NOISE, LOG_SNR)
    x0, eps = (f(prediction, OUTPUT, x_t, LOG_SNR) for f in (to_x0, to_eps))
    np.testing.assert_allclose(add_noise(x0, eps, LOG_SNR), x_t, atol=2e-5)
    np.testing.assert_allclose(target(prediction, x0, eps, LOG_SNR), OUTPUT, atol=2e-4)


def test_noise_keeps_unit_variance_data_at_unit_variance():
    x0, noise = jnp.asarray(RNG.normal(size=(2, 5, 20_000)), jnp.float32)
    np.testing.assert_allclose(jnp.std(add_noise(x0, noise, LOG_SNR), axis=1), 1.0, rtol=0.03)


def test_v_is_the_derivative_of_x_t_along_the_angle():
    """For alpha = cos(phi), sigma = sin(phi): v = d x_t / d phi (Salimans and Ho, appendix D)."""

    def x_t(phi):
        log_snr = -2 * jnp.log(jnp.tan(phi))
        return add_noise(X0, NOISE, log_snr)

    phi = jnp.float32(0.7)
    _, derivative = jax.jvp(x_t, (phi,), (jnp.float32(1.0),))
    v = target("v", X0, NOISE, -2 * jnp.log(jnp.tan(phi)))
    np.testing.assert_allclose(v, derivative, atol=1e-5)


def test_flow_is_the_derivative_of_the_straight_path():
    """For x_u = (1 - u) x0 + u noise, the output is d x_u / du, and x0 = x_u - u output."""
    u = jnp.float32(0.3)
    x_u, derivative = jax.jvp(lambda u: (1 - u) * X0 + u * NOISE, (u,), (jnp.float32(1.0),))
    log_snr = 2 * jnp.log((1 - u) / u)
    np.testing.assert_allclose(target("flow", X0, NOISE, log_snr), derivative, atol=1e-6)
    x_t = x_u / input_scale("flow", log_snr)
    np.testing.assert_allclose(x_t, add_noise(X0, NOISE, log_snr), atol=1e-6)
    implied = to_x0("flow", OUTPUT, x_t, log_snr)
    np.testing.assert_allclose(implied, x_u - u * OUTPUT, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_equal_log_snr_gives_the_same_clip_on_both_paths(prediction):
    """One output, for one clip noised as t on the circle and as u on the line, implies one x0."""
    circle, line = NoiseSchedule("cosine"), NoiseSchedule("flow")
    t = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9])
    u = line.time(circle(t))
    on_circle = add_noise(X0, NOISE, circle(t))
    on_line = add_noise(X0, NOISE, line(u))
    x0 = to_x0(prediction, OUTPUT, on_circle, circle(t))
    np.testing.assert_allclose(to_x0(prediction, OUTPUT, on_line, line(u)), x0, atol=5e-4)


def test_edm_is_the_papers_preconditioning():
    """D = c_skip y + c_out F for y = x0 + sigma noise (Karras et al., table 1)."""
    sigma = np.array([0.002, 0.1, 0.7, 5.0, 80.0]).reshape(-1, 1, 1, 1, 1)
    y = np.asarray(X0) + sigma * np.asarray(NOISE)
    variance = sigma**2 + EDM_DATA_STD**2
    c_skip, c_out = EDM_DATA_STD**2 / variance, sigma * EDM_DATA_STD / np.sqrt(variance)
    log_snr = jnp.asarray(-2 * np.log(sigma.ravel()), jnp.float32)
    x_t = add_noise(X0, NOISE, log_snr)
    x0 = to_x0("edm", OUTPUT, x_t, log_snr)
    np.testing.assert_allclose(x0, c_skip * y + c_out * np.asarray(OUTPUT), atol=2e-5)
    np.testing.assert_allclose(
        target("edm", X0, NOISE, log_snr), (X0 - c_skip * y) / c_out, atol=1e-3
    )


def test_edm_targets_have_unit_variance_at_every_noise_level():
    x0, noise = jnp.asarray(RNG.normal(size=(2, 5, 20_000)), jnp.float32)
    output = target("edm", EDM_DATA_STD * x0, noise, LOG_SNR)
    np.testing.assert_allclose(jnp.std(output, axis=1), 1.0, rtol=0.03)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("shift", [1.0, 1 / 8])
def test_estimates_are_finite_at_both_ends_of_the_schedule(prediction, shift):
    log_snr = NoiseSchedule(shift=shift)(jnp.array([0.0, 1.0]))
    for implied in (to_x0, to_eps):
        assert np.all(np.isfinite(implied(prediction, OUTPUT[:2], NOISE[:2], log_snr)))


def test_an_error_in_eps_is_magnified_by_sigma_over_alpha():
    x_t = jnp.zeros((1, 1))
    log_snr = NoiseSchedule()(jnp.array([1.0]))
    alpha, sigma = alpha_sigma(log_snr)
    x0 = to_x0("eps", jnp.full((1, 1), 1e-3), x_t, log_snr)
    np.testing.assert_allclose(x0[0], -1e-3 * sigma / alpha, rtol=1e-5)
    np.testing.assert_allclose(sigma / alpha, 1808.0, rtol=1e-3)


def test_a_low_precision_output_is_handled_in_float32():
    output = NOISE.astype(jnp.bfloat16)
    assert to_x0("v", output, add_noise(X0, NOISE, LOG_SNR), LOG_SNR).dtype == jnp.float32


def test_the_error_for_an_unknown_prediction_lists_the_choices():
    with pytest.raises(UserError, match=r"unknown prediction 'epsilon'.*edm, eps, flow, v, x0"):
        target("epsilon", X0, NOISE, LOG_SNR)
