"""SDEdit: strength 0 returns the clip itself, and strength 1 nothing of it."""

import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
from from_config import noise_schedule

from stunet.diffusion.schedules import alpha_sigma
from stunet.errors import UserError
from stunet.generate import video
from stunet.generate.text import sample_clips

CONFIG = stand_in.config(sample=dict(threshold="none", guidance_scale=1.0, steps=8))
CLIPS = np.random.default_rng(0).normal(0, 0.3, (2, 4, 8, 8, 1)).astype(np.float32)
PROMPTS = ["a", "b"]


def of_gaussians(inputs, time):
    """Returns E[x0 | x_t] for independent normal pixels with standard deviation 0.3."""
    alpha, sigma = alpha_sigma(noise_schedule(CONFIG)(time))
    gain = alpha * 0.3**2 / (alpha**2 * 0.3**2 + sigma**2)
    return gain[:, None, None, None, None] * inputs


@pytest.fixture
def run(monkeypatch):
    stand_in.replace_network(monkeypatch, of_gaussians)
    return stand_in.run(CONFIG)


def test_at_0_the_clips_come_back_bit_by_bit(run):
    np.testing.assert_array_equal(video.edit(run, PROMPTS, CLIPS, 0), CLIPS)
    again = video.edit(run, ["a", "b", "c"], CLIPS[:1], 0)
    np.testing.assert_array_equal(again, np.repeat(CLIPS[:1], 3, axis=0))


def test_at_1_nothing_of_the_clips_is_left(run):
    made = video.edit(run, PROMPTS, CLIPS, 1, seed=3)
    np.testing.assert_array_equal(made, video.edit(run, PROMPTS, -CLIPS, 1, seed=3))
    np.testing.assert_array_equal(made, sample_clips(run, PROMPTS, seed=3))


def test_the_stronger_the_less_of_the_clips_is_left(run):
    strengths = (0, 0.2, 0.4, 0.6, 0.8, 1)
    made = [video.edit(run, PROMPTS, CLIPS, strength) for strength in strengths]
    likeness = [np.corrcoef(clips.ravel(), CLIPS.ravel())[0, 1] for clips in made]
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] == pytest.approx(1)
    assert abs(likeness[-1]) < 0.2


def test_it_begins_with_the_clip_noised_to_that_time(monkeypatch):
    stand_in.replace_network(monkeypatch, lambda inputs, time: inputs)
    config = stand_in.config(sample=dict(threshold="none", guidance_scale=1.0, steps=1))
    made = video.edit(stand_in.run(config), PROMPTS, CLIPS, 0.2)
    alpha, sigma = alpha_sigma(noise_schedule(config)(jnp.float32(0.2)))
    noise = (made - alpha * CLIPS) / sigma
    assert noise.std() == pytest.approx(1, rel=0.1)
    assert abs(np.corrcoef(noise.ravel(), CLIPS.ravel())[0, 1]) < 0.15


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(run, strength):
    with pytest.raises(UserError, match=r"strength is .*; it is 0 \(the clip itself\) to 1"):
        video.edit(run, PROMPTS, CLIPS, strength)
