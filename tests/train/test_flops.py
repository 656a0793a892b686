"""Counted operations equal formulas."""

import jax
import jax.numpy as jnp
import tiny
from from_config import model_flops, sampling_flops

from stunet.train.measured import flops


def test_products_and_convolutions_are_counted():
    x, w = jnp.zeros((2, 3, 5)), jnp.zeros((5, 7))
    assert flops.count(lambda x, w: x @ w, x, w) == 2 * 2 * 3 * 7 * 5
    clip, kernel = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 4, 6))
    convolve = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert flops.count(convolve, clip, kernel) == 2 * 8 * 8 * 6 * 9 * 4


def test_loops_count_as_often_as_they_run_and_branches_once():
    w = jnp.zeros((4, 4))
    body = lambda x, _: (x @ w, None)  # noqa: E731
    looped = lambda x: jax.lax.scan(body, x, None, length=10)[0]  # noqa: E731
    assert flops.count(looped, w) == 10 * 2 * 4**3
    branched = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)  # noqa: E731
    assert flops.count(branched, w) == 2 * 2 * 4**3


def test_model_flops_follow_batch_and_frames_and_not_remat_or_scan():
    once = model_flops(tiny.config())
    assert model_flops(tiny.config(train=dict(batch_size=8))) == 2 * once
    longer = model_flops(tiny.config(data=dict(frames=32))) / 32
    # The operations per frame are equal, except for text and attention over time, which are few.
    assert abs(longer / (model_flops(tiny.config(data=dict(frames=16))) / 16) - 1) < 0.1
    deep = dict(channel_multipliers=(1,), attention_levels=(True,), temporal_factors=(1,))
    deep["layers_per_level"] = 3
    assert model_flops(tiny.config(model=deep | dict(remat="full"))) == model_flops(
        tiny.config(model=deep | dict(scan_layers=True))
    )


def test_sampling_runs_the_network_once_a_step_and_twice_with_guidance():
    config = tiny.config(sample=dict(steps=10, guidance_scale=1.0))
    once = model_flops(config) / 3 / config.train.batch_size
    assert sampling_flops(config) == 10 * once
    guided = tiny.config(sample=dict(steps=10, guidance_scale=3.0))
    assert sampling_flops(guided, clips=3) == 3 * 2 * 10 * once
