"""Noise schedules equal their published formulas, reach their bounds and have inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion.schedules import (
    EDM_DATA_STD,
    INPUT_SCALES,
    SCHEDULES,
    NoiseSchedule,
    alpha_sigma,
    input_scale,
)
from stunet.errors import UserError

TIMES = jnp.linspace(0.0, 1.0, 1001)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("bounds", [(-15.0, 15.0), (-8.0, 12.0), (-20.0, 20.0)])
def test_falls_from_the_upper_to_the_lower_bound(name, bounds):
    low, high = bounds
    log_snr = NoiseSchedule(name, log_snr_min=low, log_snr_max=high)(TIMES)
    np.testing.assert_allclose(log_snr[0], high, atol=1e-4)
    np.testing.assert_allclose(log_snr[-1], low, atol=1e-4)
    assert np.all(np.diff(log_snr) < 0)


def test_wide_cosine_is_cosine_in_alpha():
    alpha, sigma = alpha_sigma(NoiseSchedule(log_snr_min=-40.0, log_snr_max=40.0)(TIMES))
    np.testing.assert_allclose(alpha, np.cos(np.pi / 2 * np.asarray(TIMES)), atol=1e-6)
    np.testing.assert_allclose(sigma, np.sin(np.pi / 2 * np.asarray(TIMES)), atol=1e-6)


def test_cosine_equals_the_published_formula_in_float64():
    t = np.asarray(TIMES, np.float64)
    t_min, t_max = np.arctan(np.exp(-7.5)), np.arctan(np.exp(7.5))
    expected = -2 * np.log(np.tan(t_min + t * (t_max - t_min)))
    np.testing.assert_allclose(NoiseSchedule()(TIMES), expected, rtol=1e-5, atol=1e-5)


def test_flow_mixes_clip_and_noise_along_a_straight_line():
    schedule = NoiseSchedule("flow", log_snr_min=-30.0, log_snr_max=30.0)
    log_snr = schedule(TIMES)
    alpha, sigma = (a * input_scale("flow", log_snr) for a in alpha_sigma(log_snr))
    np.testing.assert_allclose(alpha, 1 - TIMES, atol=1e-6)
    np.testing.assert_allclose(sigma, TIMES, atol=1e-6)


def test_a_shift_of_flow_gives_the_shifted_times_of_stable_diffusion_3():
    bounds = dict(log_snr_min=-30.0, log_snr_max=30.0)
    m, t = 3.0, TIMES[10:-10]
    shifted = NoiseSchedule("flow", shift=1 / m, **bounds)(t)
    log_snr = NoiseSchedule("flow", **bounds)(m * t / (1 + (m - 1) * t))
    np.testing.assert_allclose(shifted, log_snr, atol=1e-3)


@pytest.mark.parametrize("name", INPUT_SCALES)
def test_input_scales_are_finite_where_signal_or_noise_vanishes(name):
    assert np.all(np.isfinite(input_scale(name, jnp.array([-jnp.inf, 0.0, jnp.inf]))))


def test_edm_sees_inputs_of_unit_variance():
    """The scale is EDM's c_in, for a clip noised as x0 + sigma noise (arXiv 2206.00364)."""
    sigma = np.array([0.002, 0.3, 1.0, 80.0])
    log_snr = jnp.asarray(-2 * np.log(sigma), jnp.float32)
    alpha, _ = alpha_sigma(log_snr)
    c_in = 1 / np.sqrt(EDM_DATA_STD**2 + sigma**2)
    np.testing.assert_allclose(alpha * input_scale("edm", log_snr), c_in, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_shift_multiplies_the_snr_by_its_square(name):
    snr = jnp.exp(NoiseSchedule(name)(TIMES))
    shifted = jnp.exp(NoiseSchedule(name, shift=64 / 128)(TIMES))
    np.testing.assert_allclose(shifted, snr / 4, rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shift", [1.0, 0.25])
def test_time_inverts_the_schedule(name, shift):
    schedule = NoiseSchedule(name, shift=shift)
    np.testing.assert_allclose(schedule.time(schedule(TIMES)), TIMES, atol=1e-6)


def test_amplitudes_lie_on_the_unit_circle_and_give_back_the_snr():
    log_snr = jnp.linspace(-40.0, 40.0, 401)
    alpha, sigma = alpha_sigma(log_snr)
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-6)
    np.testing.assert_allclose(2 * (jnp.log(alpha) - jnp.log(sigma)), log_snr, atol=1e-5)


def test_amplitudes_are_exact_at_infinite_log_snr():
    alpha, sigma = alpha_sigma(jnp.array([-jnp.inf, jnp.inf]))
    assert alpha.tolist() == [0.0, 1.0]
    assert sigma.tolist() == [1.0, 0.0]


def test_gradients_are_finite_at_both_ends():
    def amplitudes(t):
        return jnp.sum(jnp.stack(alpha_sigma(NoiseSchedule()(t))))

    assert np.all(np.isfinite(jax.vmap(jax.grad(amplitudes))(jnp.array([0.0, 1.0]))))


def test_low_precision_times_are_handled_in_float32():
    assert NoiseSchedule()(jnp.array([0.5], jnp.bfloat16)).dtype == jnp.float32


def test_schedule_is_hashable_and_so_may_be_static_under_jit():
    f = jax.jit(lambda schedule, t: schedule(t), static_argnums=0)
    np.testing.assert_allclose(f(NoiseSchedule(), TIMES), NoiseSchedule()(TIMES), atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "cosin"}, "did you mean 'cosine'"),
        ({"shift": 0.0}, "must be positive"),
        ({"shift": float("nan")}, "must be positive"),
        ({"log_snr_min": 5.0, "log_snr_max": 5.0}, "below the maximum"),
    ],
)
def test_errors_name_the_mistake(kwargs, message):
    with pytest.raises(UserError, match=message):
        NoiseSchedule(**kwargs)
