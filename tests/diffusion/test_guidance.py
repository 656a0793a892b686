"""Both kinds of guidance equal their formulas; thresholding equals Imagen's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion.guidance import guide, guided_denoiser, rescale, threshold
from stunet.diffusion.prediction import PREDICTIONS, target, to_eps, to_x0
from stunet.diffusion.samplers import sample
from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma
from stunet.errors import UserError

SCHEDULE = NoiseSchedule()
B, L, D = 3, 4, 5
SHAPE = (B, 2, 4, 4, 3)
RNG = np.random.default_rng(0)
X_T = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
IN_RANGE = jnp.asarray(RNG.uniform(-1.0, 1.0, SHAPE), jnp.float32)
TEXT = jnp.asarray(RNG.normal(size=(B, L, D)), jnp.float32)
MASK = jnp.array([[True] * 4, [True, True, False, False], [True, False, False, False]])
T = jnp.float32(0.6)


def network(x_t, time, text, mask):
    """Stands in for a network: its output depends on all of its inputs, clip by clip."""
    pooled = jnp.sum(text * mask[..., None], axis=(1, 2))
    shift = jnp.sin(pooled + 3 * time).reshape(-1, 1, 1, 1, 1)
    return jnp.tanh(x_t + shift) * (1 + time.reshape(-1, 1, 1, 1, 1))


def denoiser(scale, predict=network, prediction="v", threshold_mode="none", shared=(), **kwargs):
    return guided_denoiser(
        *(predict, TEXT, MASK, *shared),
        schedule=SCHEDULE,
        prediction=prediction,
        guidance_scale=scale,
        threshold_mode=threshold_mode,
        **kwargs,
    )


def estimate(mask, prediction="v"):
    time = jnp.full((B,), T)
    return to_x0(prediction, network(X_T, time, TEXT, mask), X_T, SCHEDULE(time))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_batch_of_both_halves_equals_two_separate_calls(prediction):
    batches = []

    def predict(x_t, *rest):
        batches.append(x_t.shape[0])
        return network(x_t, *rest)

    guided = denoiser(4.0, predict, prediction)(X_T, T)
    cond, uncond = estimate(MASK, prediction), estimate(jnp.zeros_like(MASK), prediction)
    np.testing.assert_allclose(guided, uncond + 4.0 * (cond - uncond), rtol=1e-4, atol=1e-4)
    assert batches == [2 * B]


@pytest.mark.parametrize(("scale", "mask"), [(1.0, MASK), (0.0, jnp.zeros_like(MASK))])
def test_scales_one_and_zero_run_only_one_half(scale, mask):
    batches = []

    def predict(x_t, *rest):
        batches.append(x_t.shape[0])
        return network(x_t, *rest)

    np.testing.assert_allclose(denoiser(scale, predict)(X_T, T), estimate(mask), rtol=1e-6)
    assert batches == [B]


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_guide_at_scales_one_and_zero_returns_one_estimate(scale):
    cond, uncond = X_T, IN_RANGE
    np.testing.assert_allclose(guide(cond, uncond, scale), [uncond, cond][int(scale)], atol=1e-6)


def test_guiding_x0_is_guiding_eps():
    log_snr = jnp.float32(-1.3)
    cond, uncond = IN_RANGE, IN_RANGE[::-1]
    eps = [to_eps("x0", x0, X_T, log_snr) for x0 in (cond, uncond)]
    in_eps = to_x0("eps", guide(*eps, 3.5), X_T, log_snr)
    np.testing.assert_allclose(guide(cond, uncond, 3.5), in_eps, rtol=1e-4, atol=1e-4)


def test_guided_estimate_has_the_extrapolated_score_of_two_gaussians(gaussian):
    """By Tweedie's formula, x0 = (x_t + sigma^2 score) / alpha.

    The scores come from automatic differentiation of log q.
    """
    scale = 3.0
    cond, uncond = gaussian(0.4, 0.3, SCHEDULE), gaussian(-0.1, 0.8, SCHEDULE)
    alpha, sigma = alpha_sigma(SCHEDULE(T))

    def log_density(x_t, data):
        variance = alpha**2 * data.std**2 + sigma**2
        return jnp.sum(jax.scipy.stats.norm.logpdf(x_t, alpha * data.mean, jnp.sqrt(variance)))

    score_cond, score_uncond = (jax.grad(log_density)(X_T, data) for data in (cond, uncond))
    score = score_uncond + scale * (score_cond - score_uncond)
    guided = guide(cond.denoise(X_T, T), uncond.denoise(X_T, T), scale)
    np.testing.assert_allclose(guided, (X_T + sigma**2 * score) / alpha, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_sampling_with_guidance_extrapolates_the_mean_of_the_data(gaussian, prediction):
    """Guidance by w between two Gaussians of one width samples N(m_u + w (m_c - m_u), std^2)."""
    scale, std = 2.5, 0.3

    def predict(x_t, time, text, mask):
        mean = jnp.where(jnp.any(mask, axis=1), 0.2, -0.1).reshape(-1, 1, 1, 1, 1)
        t = time.reshape(-1, 1, 1, 1, 1)
        x0 = gaussian(mean, std, SCHEDULE).denoise(x_t, t)
        alpha, sigma = alpha_sigma(SCHEDULE(t))
        return target(prediction, x0, (x_t - alpha * x0) / sigma, SCHEDULE(time))

    x0 = sample(
        *(denoiser(scale, predict, prediction), X_T, jax.random.key(4)),
        schedule=SCHEDULE,
        sampler="dpmpp_2m",
        steps=64,
    )
    expected = gaussian(-0.1 + scale * 0.3, std, SCHEDULE).flow(X_T, jnp.float32(1.0))
    np.testing.assert_allclose(x0, expected, atol=6e-3)


@pytest.mark.parametrize(("times", "inside"), [((0.5, 0.7), True), ((0.0, 0.5), False)])
def test_guidance_holds_within_its_interval_of_noise_times_alone(times, inside):
    found = jax.jit(denoiser(4.0, guidance_times=times))(X_T, T)
    expected = denoiser(4.0 if inside else 1.0)(X_T, T)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_outside_the_interval_the_network_runs_on_one_half():
    batches = []

    def predict(x_t, *rest):
        jax.debug.callback(lambda: batches.append(x_t.shape[0]))
        return network(x_t, *rest)

    denoise = jax.jit(denoiser(4.0, predict, guidance_times=(0.5, 0.7)))
    for t in (0.6, 0.4):
        jax.block_until_ready(denoise(X_T, jnp.float32(t)))
    jax.effects_barrier()
    assert batches == [2 * B, B]


def test_rescaling_restores_the_contrast_of_each_clip():
    plain, cond = denoiser(6.0)(X_T, T), estimate(MASK)
    full = denoiser(6.0, guidance_rescale=1.0)(X_T, T)
    axes = (1, 2, 3, 4)
    np.testing.assert_allclose(np.std(full, axes), np.std(cond, axes), rtol=1e-4)
    half = denoiser(6.0, guidance_rescale=0.5)(X_T, T)
    np.testing.assert_allclose(half, (plain + full) / 2, rtol=1e-3, atol=1e-4)


def test_rescaling_leaves_a_clip_of_one_colour_as_it_is():
    flat = jnp.full(SHAPE, 0.5)
    np.testing.assert_array_equal(rescale(flat, X_T, 1.0), flat)


def weaker(x_t, time, text, mask):
    """Stands in for a weaker version of `network`, whose clips differ from those of `network`."""
    return jnp.cos(network(x_t, time, text, mask))


def test_autoguidance_by_one_is_the_network_alone_bit_for_bit():
    def never(*inputs):
        raise AssertionError("the weaker network was called")

    for scale in (0.0, 1.0, 4.0):
        found = denoiser(scale, weaker=never, autoguidance_scale=1.0)(X_T, T)
        np.testing.assert_array_equal(found, denoiser(scale)(X_T, T))


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_autoguidance_extrapolates_from_the_weaker_network_and_adds_to_guidance(scale):
    prompts = jnp.zeros_like(MASK) if scale == 0 else MASK
    good, unconditional = estimate(prompts), estimate(jnp.zeros_like(MASK))
    time = jnp.full((B,), T)
    bad = to_x0("v", weaker(X_T, time, TEXT, prompts), X_T, SCHEDULE(time))
    found = denoiser(scale, weaker=weaker, autoguidance_scale=2.5)(X_T, T)
    by_text = (max(scale, 1) - 1) * (good - unconditional)
    np.testing.assert_allclose(found, bad + 2.5 * (good - bad) + by_text, rtol=1e-4, atol=1e-4)


def test_outside_the_interval_of_guidance_there_is_no_autoguidance():
    options = dict(weaker=weaker, autoguidance_scale=2.5)
    found = jax.jit(denoiser(4.0, guidance_times=(0.0, 0.5), **options))(X_T, T)
    np.testing.assert_allclose(found, estimate(MASK), rtol=1e-4, atol=1e-5)
    inside = jax.jit(denoiser(4.0, guidance_times=(0.5, 0.7), **options))(X_T, T)
    np.testing.assert_allclose(inside, denoiser(4.0, **options)(X_T, T), rtol=1e-4, atol=1e-5)


def test_rescaling_takes_back_the_contrast_of_both_kinds_of_guidance():
    full = denoiser(6.0, weaker=weaker, autoguidance_scale=3.0, guidance_rescale=1.0)(X_T, T)
    axes = (1, 2, 3, 4)
    np.testing.assert_allclose(np.std(full, axes), np.std(estimate(MASK), axes), rtol=1e-4)


def test_autoguidance_undoes_the_errors_of_a_network_that_is_half_as_wrong(gaussian):
    """The weaker network learned twice the error of the mean, so a scale of 2 samples the data."""
    data = gaussian(0.2, 0.3, SCHEDULE)

    def learned(error):
        def predict(x_t, time, text, mask):
            t = time.reshape(-1, 1, 1, 1, 1)
            return gaussian(data.mean + error, data.std, SCHEDULE).denoise(x_t, t)

        return predict

    options = dict(weaker=learned(0.2), autoguidance_scale=2.0)
    found = sample(
        *(denoiser(1.0, learned(0.1), "x0", **options), X_T, jax.random.key(4)),
        schedule=SCHEDULE,
        sampler="dpmpp_2m",
        steps=64,
    )
    np.testing.assert_allclose(found, data.flow(X_T, jnp.float32(1.0)), atol=6e-3)


def test_further_inputs_reach_both_halves_clip_by_clip():
    extra = jnp.arange(float(B)).reshape(B, 1, 1, 1, 1)

    def predict(x_t, time, text, mask, extra):
        return jnp.broadcast_to(extra, x_t.shape)

    x0 = denoiser(7.0, predict, "x0", shared=(extra,))(X_T, T)
    np.testing.assert_allclose(x0, np.broadcast_to(extra, SHAPE))


def test_low_precision_networks_are_guided_in_float32():
    def predict(*args):
        return network(*args).astype(jnp.bfloat16)

    assert denoiser(4.0, predict)(X_T, T).dtype == jnp.float32


@pytest.mark.parametrize("mode", ["dynamic", "static", "none"])
def test_threshold_leaves_estimates_in_range_alone(mode):
    np.testing.assert_array_equal(threshold(IN_RANGE, mode), IN_RANGE)


@pytest.mark.parametrize("percentile", [50.0, 99.5, 100.0])
def test_dynamic_threshold_is_imagens(percentile):
    x0 = 3 * X_T
    result = np.asarray(threshold(x0, "dynamic", percentile))
    assert np.max(np.abs(result)) <= 1
    for clip, thresholded in zip(np.asarray(x0), result, strict=True):
        s = max(1.0, np.percentile(np.abs(clip), percentile))
        np.testing.assert_allclose(thresholded, np.clip(clip, -s, s) / s, rtol=1e-5)


def test_dynamic_threshold_treats_each_clip_by_itself():
    result = threshold(IN_RANGE.at[1].multiply(10.0))
    np.testing.assert_array_equal(result[0], IN_RANGE[0])
    np.testing.assert_array_equal(result[2], IN_RANGE[2])
    assert np.max(np.abs(result[1])) <= 1


def test_static_threshold_clips_and_none_does_nothing():
    x0 = 3 * X_T
    np.testing.assert_array_equal(threshold(x0, "static"), np.clip(x0, -1, 1))
    np.testing.assert_array_equal(threshold(x0, "none"), x0)


def test_guided_estimates_are_thresholded_after_guidance():
    expected = threshold(denoiser(9.0)(X_T, T), "dynamic")
    result = denoiser(9.0, threshold_mode="dynamic")(X_T, T)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_errors_name_the_mistake():
    with pytest.raises(UserError, match="unknown threshold 'dynamical'; did you mean 'dynamic'"):
        denoiser(2.0, threshold_mode="dynamical")
    with pytest.raises(UserError, match="unknown prediction"):
        denoiser(2.0, prediction="noise")
    with pytest.raises(UserError, match=r"guidance times are 0\.8 to 0\.2"):
        denoiser(2.0, guidance_times=(0.8, 0.2))
    with pytest.raises(UserError, match="percentile is 0"):
        threshold(X_T, "dynamic", 0.0)
