"""Schedules of 1000 betas equal diffusers' schedulers, and samplers start from pure noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.configs.schema import BETA_SCHEDULES
from stunet.diffusion.betas import BETAS, STEPS
from stunet.diffusion.loss import WEIGHTINGS, clip_loss
from stunet.diffusion.prediction import PREDICTIONS, to_x0
from stunet.diffusion.samplers import SAMPLERS, sample, time_grid
from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma
from stunet.diffusion.updates import Step, ddim
from stunet.errors import UserError

AT_STEPS = jnp.arange(STEPS) / (STEPS - 1)
THEIR_NAMES = {"scaled_linear": "scaled_linear", "linear_betas": "linear"}
PURE_NOISE = NoiseSchedule("scaled_linear", zero_terminal_snr=True)
X_T = jnp.linspace(-2.5, 2.5, 101)
KEY = jax.random.key(0)

every_kind = pytest.mark.parametrize("name", BETAS)
either_end = pytest.mark.parametrize("zero", [False, True])


def theirs(scheduler, name="scaled_linear", zero=False, **settings):
    diffusers = pytest.importorskip("diffusers")
    return getattr(diffusers, scheduler)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule=THEIR_NAMES[name],
        rescale_betas_zero_snr=zero,
        **settings,
    )


@every_kind
@either_end
def test_amplitudes_at_the_steps_are_those_of_diffusers(name, zero):
    alpha, _ = alpha_sigma(NoiseSchedule(name, zero_terminal_snr=zero)(AT_STEPS))
    expected = theirs("DDPMScheduler", name, zero).alphas_cumprod.numpy()
    np.testing.assert_allclose(np.square(alpha), expected, rtol=1e-4, atol=1e-9)


@every_kind
@either_end
def test_the_schedule_falls_between_the_steps_and_has_an_inverse(name, zero):
    schedule, t = NoiseSchedule(name, zero_terminal_snr=zero), jnp.linspace(0, 1, 4321)
    assert np.all(np.diff(schedule(t)) < 0)
    np.testing.assert_allclose(schedule.time(schedule(t)), t, atol=1e-6)


def test_no_signal_is_left_at_time_1_and_only_there():
    log_snr = jax.jit(PURE_NOISE)(AT_STEPS)
    assert log_snr[-1] == -jnp.inf
    assert np.all(np.isfinite(log_snr[:-1]))
    assert PURE_NOISE.time(jnp.float32(-jnp.inf)) == 1


@pytest.mark.parametrize(("prediction", "zero"), [("eps", False), ("v", False), ("v", True)])
def test_the_first_step_of_ddim_is_that_of_diffusers(prediction, zero):
    torch = pytest.importorskip("torch")
    names = {"eps": "epsilon", "v": "v_prediction"}
    scheduler = theirs(
        "DDIMScheduler",
        zero=zero,
        prediction_type=names[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[:2].tolist() == [999, 899]
    output = np.cos(np.asarray(X_T))
    expected = scheduler.step(torch.tensor(output), 999, torch.tensor(np.asarray(X_T)))
    schedule = NoiseSchedule("scaled_linear", zero_terminal_snr=zero)
    before, after = schedule(jnp.array([999, 899]) / 999)
    x0 = to_x0(prediction, jnp.asarray(output), X_T, before)
    levels = dict(log_snr_before=-jnp.inf, log_snr_t=before, log_snr_s=after, levels=None)
    ours = ddim(Step(x=X_T, x0=x0, x0_before=x0, rng=KEY, i=0, **levels))
    np.testing.assert_allclose(x0, expected.pred_original_sample, atol=1e-4)
    np.testing.assert_allclose(ours, expected.prev_sample, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@either_end
def test_samplers_find_the_distribution_of_the_data(gaussian, sampler, zero):
    schedule = NoiseSchedule("scaled_linear", zero_terminal_snr=zero)
    data, n = gaussian(0.3, 0.4, schedule), 20_000
    alpha, sigma = alpha_sigma(schedule(jnp.float32(1.0)))
    x_T = 0.3 * alpha + jnp.hypot(0.4 * alpha, sigma) * jax.random.normal(KEY, (n,))
    x0 = sample(data.denoise, x_T, KEY, schedule=schedule, sampler=sampler, steps=400)
    np.testing.assert_allclose(np.mean(x0), 0.3, atol=4 * 0.4 / np.sqrt(n))
    # Four standard errors, and the bias that is left after 400 steps.
    np.testing.assert_allclose(np.std(x0), 0.4, atol=4 * 0.4 / np.sqrt(2 * n) + 0.012)
    if sampler != "ancestral":
        np.testing.assert_allclose(x0, data.flow(x_T, jnp.float32(1.0)), atol=0.06)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampling_from_pure_noise_begins_with_the_network_seeing_time_1(sampler):
    times = time_grid(sampler, schedule=PURE_NOISE, steps=8)
    assert times[0] == 1
    assert np.all(np.isfinite(PURE_NOISE(times[1:])))
    assert np.all(np.diff(times)[:: SAMPLERS[sampler].calls] < 0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", sorted(set(PREDICTIONS) - {"eps"}))
def test_losses_are_finite_where_there_is_no_signal(weighting, prediction):
    x0, settings = jnp.ones((2, 1, 1, 1, 1)), dict(prediction=prediction, weighting=weighting)
    t = jnp.array([0.9999, 1.0])
    loss = clip_loss(lambda x, t: 0 * x, x0, t, 2 * x0, schedule=PURE_NOISE, **settings)
    assert np.all(np.isfinite(loss))


def test_the_config_offers_every_schedule_of_betas():
    assert set(BETA_SCHEDULES) == set(BETAS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "scaled_liner"}, "did you mean 'scaled_linear'"),
        ({"beta_start": 0.02}, "beta_start 0.02 and beta_end 0.012; they must rise"),
        ({"beta_end": 1.5}, "lie between 0 and 1"),
        ({"zero_terminal_snr": True}, "'cosine' has no zero terminal SNR; choose one of"),
    ],
)
def test_errors_name_the_mistake(kwargs, message):
    with pytest.raises(UserError, match=message):
        NoiseSchedule(**kwargs)
