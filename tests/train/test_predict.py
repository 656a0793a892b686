"""The network's inputs, and the use of its outputs, tested with formulas in place of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from from_config import make_network, noise_schedule, parts_with_network

from stunet.diffusion.augmentation import corrupt
from stunet.diffusion.prediction import add_noise

CLIPS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)), jnp.float32)
REST = jnp.array([0.2, 0.7]), None, None


@pytest.fixture
def calls():
    """Returns (denoiser_of, calls): a denoiser whose network returns its input twice, and a list of
    the arguments of each call of that network."""
    calls = []

    def apply(params, inputs, *rest):
        calls.append((inputs, *rest))
        return jnp.concatenate([inputs, inputs + 100], axis=-1)

    return lambda config: parts_with_network(config, apply).denoiser, calls


def test_a_learned_variance_is_not_looked_at(calls):
    config = tiny.config(model=dict(learned_variance=True))
    assert make_network(config).out_channels == 2
    denoiser = calls[0](config)
    np.testing.assert_array_equal(denoiser.predict({}, CLIPS, *REST), CLIPS)


def test_a_level_that_is_embedded_is_the_time_of_as_much_noise_and_no_plane(calls):
    config = tiny.config(
        model=dict(level_embedding=True),
        upscale=dict(factor=2),
        diffusion=dict(schedule="iddpm", log_snr_min=-20.0, log_snr_max=10.0),
    )
    low, level = CLIPS[:, :, :4, :4], jnp.array([0.3, 0.9])
    denoiser = calls[0](config)
    denoiser.predict({}, CLIPS, *REST, low, level)
    ((inputs, *_, time),) = calls[1]
    # The channels are the noisy clip and the enlarged clip.
    assert inputs.shape[-1] == 2 == denoiser.abstract_arguments(2)[0].shape[-1]
    np.testing.assert_array_equal(inputs[..., :1], CLIPS)
    # The factors of the clip and of the noise.
    ones, zeros = jnp.ones((2, 1, 1, 1, 1)), jnp.zeros((2, 1, 1, 1, 1))
    signal, noise = (
        corrupt(*pair[:1], level, *pair[1:]) for pair in ((ones, zeros), (zeros, ones))
    )
    log_snr = 2 * jnp.log(signal / noise).ravel()
    np.testing.assert_allclose(noise_schedule(config)(time), log_snr, atol=1e-3)


@pytest.mark.parametrize("given", [{}, dict(upscale=dict(factor=2))])
def test_flow_matching_shows_the_network_the_straight_mix_of_clip_and_noise(calls, given):
    flow = dict(schedule="flow", input_scale="flow", log_snr_min=-30.0, log_snr_max=30.0)
    denoiser = calls[0](tiny.config(diffusion=flow, **given))
    low = (CLIPS[:, :, :4, :4], jnp.array([0.3, 0.9])) if given else ()
    noise = jnp.asarray(np.random.default_rng(1).normal(size=CLIPS.shape), jnp.float32)
    x_t = add_noise(CLIPS, noise, denoiser.schedule(REST[0]))
    denoiser.predict({}, x_t, *REST, *low)
    t = REST[0][:, None, None, None, None]
    seen = calls[1][0][0][..., :1]
    np.testing.assert_allclose(seen, (1 - t) * CLIPS + t * noise, atol=1e-5)


def test_a_corrected_loss_is_divided_by_the_density_of_the_drawn_times(calls):
    settings = dict(time_sampling="logit_normal", time_mean=0.5, weighting="sigmoid")
    parts = [
        parts_with_network(
            tiny.config(diffusion=dict(**settings, time_correction=corrected)),
            lambda params, inputs, *rest: jnp.zeros_like(inputs),
        )
        for corrected in (False, True)
    ]
    batch = dict(video=jnp.zeros((2, 4, 8, 8, 1), jnp.uint8))
    batch |= dict(text=jnp.zeros((2, 3, 8)), text_mask=jnp.ones((2, 3), bool))
    plain, corrected = (of.objective.draw(jax.random.key(0), batch) for of in parts)
    t, inverse_density = corrected[2], corrected[-1]
    z = jnp.log(t / (1 - t)) - 0.5
    density = jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.pi) / (t * (1 - t))
    np.testing.assert_allclose(inverse_density, 1 / density, rtol=1e-4)
    losses = [
        of.objective.loss({}, *drawn) for of, drawn in zip(parts, (plain, corrected), strict=True)
    ]
    np.testing.assert_allclose(losses[1], losses[0] / density, rtol=1e-4)
