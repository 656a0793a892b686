"""Samplers follow the exact flow of Gaussian data, at their order of convergence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampler_orders import Mixture

from stunet.diffusion.prediction import add_noise
from stunet.diffusion.samplers import SAMPLERS, init, make_step, sample, time_grid
from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma, input_scale
from stunet.errors import UserError

KEY = jax.random.key(0)
X_T = jnp.linspace(-2.5, 2.5, 11)
DATA = pytest.mark.parametrize(
    ("name", "mean", "std", "shift"),
    [
        ("cosine", 0.3, 0.4, 1.0),
        ("cosine", -0.2, 0.1, 0.5),
        ("linear", 0.3, 0.4, 1.0),
        ("flow", 0.3, 0.4, 1.0),
    ],
)


def errors(data, sampler, step_counts, t_start=1.0):
    """Returns the largest distance from the exact solution of the ODE for each number of steps."""
    exact = data.flow(X_T, jnp.float32(t_start))
    run = functools.partial(sample, data.denoise, X_T, KEY, schedule=data.schedule)
    return np.array(
        [
            np.max(np.abs(run(sampler=sampler, steps=n, t_start=t_start) - exact))
            for n in step_counts
        ]
    )


@DATA
def test_ddim_converges_to_the_exact_flow_at_first_order(gaussian, name, mean, std, shift):
    error = errors(gaussian(mean, std, NoiseSchedule(name, shift)), "ddim", (64, 128, 256))
    ratios = error[:-1] / error[1:]
    assert np.all((ratios > 1.8) & (ratios < 2.1)), ratios
    assert error[-1] < 0.02


@DATA
def test_dpmpp_2m_converges_to_the_exact_flow_at_second_order(gaussian, name, mean, std, shift):
    error = errors(gaussian(mean, std, NoiseSchedule(name, shift)), "dpmpp_2m", (32, 64, 128))
    ratios = error[:-1] / error[1:]
    assert np.all((ratios > 3.4) & (ratios < 4.6)), ratios
    assert error[-1] < 1e-3


@DATA
def test_heun_converges_to_the_exact_flow_at_second_order(gaussian, name, mean, std, shift):
    error = errors(gaussian(mean, std, NoiseSchedule(name, shift)), "heun", (32, 64, 128))
    ratios = error[:-1] / error[1:]
    assert np.all((ratios > 3.4) & (ratios < 4.6)), ratios
    assert error[-1] < 5e-3


@DATA
def test_unipc_converges_to_the_exact_flow_at_third_order(gaussian, name, mean, std, shift):
    error = errors(gaussian(mean, std, NoiseSchedule(name, shift)), "unipc", (32, 64))
    assert error[0] / error[1] > 5.5, error
    assert error[-1] < 2e-3


@pytest.mark.parametrize(
    ("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2), ("unipc", 3)]
)
def test_samplers_converge_to_the_exact_flow_of_a_mixture(sampler, order):
    """The flow keeps quantiles, so the distribution functions of noise and data give its end."""
    data = Mixture(NoiseSchedule("flow"))
    exact = data.flow(X_T)
    error = [
        np.sqrt(np.mean((run - exact) ** 2))
        for run in (
            sample(data.denoise, X_T, KEY, schedule=data.schedule, sampler=sampler, steps=n)
            for n in (32, 128)
        )
    ]
    measured = np.log(error[0] / error[1]) / np.log(4)
    assert order - 0.35 < measured < order + 0.6, (measured, error)


def test_heun_calls_the_denoiser_twice_at_each_time_between_the_ends():
    times = time_grid("heun", schedule=NoiseSchedule(), steps=5)
    assert times[1] == times[2]
    assert times[3] == times[4]
    assert len(np.unique(times)) == 3


CHURNED = pytest.mark.parametrize(("sampler", "steps"), [("ddim", 400), ("heun", 100)])


@CHURNED
def test_churn_reproduces_the_distribution_of_the_data(gaussian, sampler, steps):
    data, n = gaussian(0.3, 0.4, NoiseSchedule()), 20_000
    x_T = jax.random.normal(jax.random.key(1), (n,))
    settings = dict(schedule=data.schedule, sampler=sampler, steps=steps)
    x0 = sample(data.denoise, x_T, KEY, churn=40.0, **settings)
    np.testing.assert_allclose(np.mean(x0), 0.3, atol=4 * 0.4 / np.sqrt(n))
    np.testing.assert_allclose(np.std(x0), 0.4, atol=4 * 0.4 / np.sqrt(2 * n) + 0.006)
    # Without churn, the sample is an affine function of the first noise.
    assert np.corrcoef(x0, x_T)[0, 1] < 0.5


@CHURNED
def test_churn_keeps_the_marginals_when_the_clip_is_known(sampler, steps):
    schedule, n = NoiseSchedule(), 20_000
    x0 = jnp.full((n,), 0.7)
    settings = dict(schedule=schedule, sampler=sampler, steps=6, churn=1.5)
    step = make_step(lambda x_t, t: x0, KEY, **settings)
    state, times = init(jax.random.normal(jax.random.key(2), (n,)), sampler), time_grid(**settings)
    for i in range(5):
        state = step(state, i)
        alpha, sigma = alpha_sigma(schedule(times[i + 1]))
        np.testing.assert_allclose(np.mean(state.x), 0.7 * alpha, atol=4 / np.sqrt(n))
        np.testing.assert_allclose(np.std(state.x), sigma, rtol=4 / np.sqrt(2 * n))
    np.testing.assert_array_equal(step(state, 5).x, x0)


@pytest.mark.parametrize(("sampler", "ratio"), [("ddim", 2.0), ("dpmpp_2m", 4.0), ("heun", 4.0)])
def test_deterministic_samplers_converge_from_the_middle_too(gaussian, sampler, ratio):
    data = gaussian(0.3, 0.4, NoiseSchedule())
    coarse, fine = errors(data, sampler, (64, 128), t_start=0.6)
    np.testing.assert_allclose(coarse / fine, ratio, rtol=0.15)


def test_ddim_is_eulers_method_for_the_flow(gaussian):
    """On the straight path x_u = (1 - u) x0 + u noise, dx_u / du = noise - x0."""
    schedule = NoiseSchedule("flow")
    data = gaussian(0.3, 0.4, schedule)
    steps = 7
    log_snr = schedule(time_grid("ddim", schedule=schedule, steps=steps))
    u = np.append(jax.nn.sigmoid(-log_snr / 2), 0.0)
    x = X_T * input_scale("flow", log_snr[0])
    for i in range(steps):
        x0 = data.denoise(x / input_scale("flow", log_snr[i]), schedule.time(log_snr[i]))
        velocity = (x - x0) / u[i]
        x = x + (u[i + 1] - u[i]) * velocity
    ddim = sample(data.denoise, X_T, KEY, schedule=schedule, sampler="ddim", steps=steps)
    np.testing.assert_allclose(ddim, x, atol=2e-5)


def test_ancestral_reproduces_the_distribution_of_the_data(gaussian):
    data = gaussian(0.3, 0.4, NoiseSchedule())
    n = 20_000
    x_T = jax.random.normal(jax.random.key(1), (n,))
    x0 = sample(data.denoise, x_T, KEY, schedule=data.schedule, sampler="ancestral", steps=400)
    # Four standard errors, and for the deviation also the bias that is left after 400 steps.
    np.testing.assert_allclose(np.mean(x0), 0.3, atol=4 * 0.4 / np.sqrt(n))
    np.testing.assert_allclose(np.std(x0), 0.4, atol=4 * 0.4 / np.sqrt(2 * n) + 0.004)
    # The fourth moment is a normal's too, and the sample does not depend on its start.
    z = (np.asarray(x0) - 0.3) / 0.4
    np.testing.assert_allclose(np.mean(z**4), 3.0, atol=4 * np.sqrt(96 / n) + 0.06)
    assert abs(np.corrcoef(x0, x_T)[0, 1]) < 4 / np.sqrt(n)


def test_ancestral_keeps_the_marginals_when_the_clip_is_known():
    """If the denoiser knows x0 exactly, every x_s is a draw from q(x_s | x0)."""
    schedule, n = NoiseSchedule(), 20_000
    x0 = jnp.full((n,), 0.7)
    step = make_step(lambda x_t, t: x0, KEY, schedule=schedule, sampler="ancestral", steps=4)
    state = init(jax.random.normal(jax.random.key(2), (n,)), "ancestral")
    times = time_grid("ancestral", schedule=schedule, steps=4)
    for i in range(3):
        state = step(state, i)
        expected = add_noise(x0, jax.random.normal(jax.random.key(3), (n,)), schedule(times[i + 1]))
        np.testing.assert_allclose(np.mean(state.x), np.mean(expected), atol=0.04)
        np.testing.assert_allclose(np.std(state.x), np.std(expected), atol=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_returns_the_estimate_of_the_denoiser(gaussian, sampler):
    data = gaussian(0.3, 0.4, NoiseSchedule())
    x0 = sample(data.denoise, X_T, KEY, schedule=data.schedule, sampler=sampler, steps=1)
    np.testing.assert_allclose(x0, data.denoise(X_T, jnp.float32(1.0)), rtol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [2, 7])
def test_a_denoiser_that_knows_the_clip_returns_it(sampler, steps):
    clip = jnp.cos(jnp.arange(11.0))
    x0 = sample(
        lambda x_t, t: clip, X_T, KEY, schedule=NoiseSchedule(), sampler=sampler, steps=steps
    )
    np.testing.assert_allclose(x0, clip, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_sits_inside_one_jit_and_traces_the_denoiser_once(gaussian, sampler):
    data, traces = gaussian(0.3, 0.4, NoiseSchedule()), []

    def denoise(x_t, t):
        assert t.shape == ()
        assert t.dtype == jnp.float32
        traces.append(t)
        return data.denoise(x_t, t)

    @jax.jit
    def run(x_T, key):
        return sample(denoise, x_T, key, schedule=data.schedule, sampler=sampler, steps=25)

    x_T = jnp.linspace(-2.5, 2.5, 16).reshape(2, 2, 2, 2, 1)
    x0 = run(x_T, KEY)
    assert len(traces) == 1
    assert x0.shape == x_T.shape
    assert np.all(np.isfinite(x0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_host_loop_over_the_steps_gives_the_same_sample(gaussian, sampler):
    data = gaussian(0.3, 0.4, NoiseSchedule())
    settings = {"schedule": data.schedule, "sampler": sampler, "steps": 6, "t_start": 0.8}
    # Compiled as users do: the tests' emitter (tests/conftest.py) rounds x and x0 differently.
    options = {"xla_cpu_use_fusion_emitters": True}
    step = jax.jit(make_step(data.denoise, KEY, **settings), compiler_options=options)
    state = init(X_T, sampler)
    for i in range(6):
        state = step(state, i)
    np.testing.assert_allclose(state.x, sample(data.denoise, X_T, KEY, **settings), atol=1e-5)
    np.testing.assert_array_equal(state.x, state.x0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_ancestral_depends_on_the_key(gaussian, sampler):
    data = gaussian(0.3, 0.4, NoiseSchedule())
    a, b = (
        sample(data.denoise, X_T, key, schedule=data.schedule, sampler=sampler, steps=5)
        for key in (KEY, jax.random.key(7))
    )
    assert np.array_equal(a, b) == (sampler != "ancestral")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("t_start", [1.0, 0.3])
def test_times_fall_from_the_start_and_never_reach_zero(sampler, t_start):
    times = time_grid(sampler, schedule=NoiseSchedule(shift=0.5), steps=50, t_start=t_start)
    np.testing.assert_allclose(times[0], t_start, atol=1e-6)
    # Heun's method calls the denoiser twice at each time in between.
    assert np.all(np.diff(times)[:: SAMPLERS[sampler].calls] < 0)
    assert np.all(np.diff(times) <= 0)
    assert times[-1] > 0
    assert times[0] <= 1


def test_dpmpp_2m_steps_are_even_in_log_snr_and_the_others_in_time():
    schedule = NoiseSchedule(shift=0.5)
    log_snr = schedule(time_grid("dpmpp_2m", schedule=schedule, steps=20))
    np.testing.assert_allclose(np.diff(log_snr), 30 / 20, atol=5e-3)
    np.testing.assert_allclose(
        np.diff(time_grid("ddim", schedule=schedule, steps=20)), -1 / 20, atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sampler": "dpm"},
            "unknown sampler 'dpm'.*choose one of ancestral, ddim, dpmpp_2m",
        ),
        ({"steps": 0}, "steps is 0"),
        ({"t_start": 0.0}, "t_start is 0.0"),
        ({"t_start": 1.5}, "t_start is 1.5"),
        ({"churn": -1.0}, "churn is -1 with the sampler ddim; it must not be below 0"),
        ({"churn": 5.0, "sampler": "unipc"}, "needs one of ddim, heun"),
    ],
)
def test_errors_name_the_mistake(change, message):
    settings = {"schedule": NoiseSchedule(), "sampler": "ddim", "steps": 4, **change}
    with pytest.raises(UserError, match=message):
        sample(lambda x_t, t: x_t, X_T, KEY, **settings)
