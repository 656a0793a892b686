"""The network depends on time, text and conditioning channels, and on masked tokens in no way."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import (
    assert_close,
    compiled,
    inputs,
    jit,
    network,
    randomised,
    shapes,
)

from stunet.nn.attention import TextAttention

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")


def test_zero_widening_to_condition_channels_changes_nothing():
    """Lumiere's input [J, C, M] has 7 channels; the weights of the last 4 start at zero."""
    net, args = network(), inputs()
    params = randomised(shapes(net, *args))
    first = params["params"]["conv_in"]
    wide = jnp.pad(first["kernel"], [(0, 0)] * 3 + [(0, 4), (0, 0)])
    widened = {"params": params["params"] | {"conv_in": first | {"kernel": wide}}}
    x, *rest = args
    conditioned = jnp.concatenate([x, inputs(channels=4, seed=3)[0]], axis=-1)
    assert shapes(net, conditioned, *rest)["params"]["conv_in"]["kernel"].shape == wide.shape
    got = compiled(net)(widened, conditioned, *rest)
    assert_close(got, compiled(net)(params, *args), 1e-6)


def test_text_its_mask_and_the_time_all_matter():
    net = network()
    x, time, text, mask = inputs()
    params = randomised(shapes(net, x, time, text, mask))
    apply = functools.partial(compiled(net), params, x)
    want = apply(time, text, mask)
    for other in (
        apply(time, -text, mask),
        apply(time, text, ~mask),
        apply(time + 0.1, text, mask),
    ):
        assert np.all(np.abs(other - want).max(axis=(1, 2, 3, 4)) > 1e-3)
    # Padding takes part in the pooled text, as it did when the open weights were trained.
    padded = jnp.where(mask[..., None], text, 0.0)
    assert np.abs(apply(time, padded, mask) - want).max() > 1e-3


def test_attention_does_not_see_masked_tokens():
    """Masked tokens have no effect except on the statistics of `norm_cross`.

    These go over all tokens and a group of channels. So the test permutes the channels of masked
    tokens within groups, which keeps the statistics.
    """
    block = TextAttention(head_channels=4, groups=2, text_groups=4)
    x, _, text, mask = inputs(channels=8)
    params = randomised(shapes(block, x, text, mask))
    apply = functools.partial(jit(block.apply), params, x)
    others = text.reshape(*text.shape[:2], 4, -1)[..., ::-1].reshape(text.shape)
    changed = jnp.where(mask[..., None], text, others)
    want = apply(text, mask)
    assert_close(apply(changed, mask), want, 1e-6)
    assert np.abs(apply(changed, None) - apply(text, None)).max() > 1e-2  # unless unmasked
    assert_close(apply(text, jnp.ones_like(mask)), apply(text, None), 1e-6)
    # With all tokens masked, it is self-attention, as without text.
    assert_close(apply(text, jnp.zeros_like(mask)), apply(None, None), 1e-6)
