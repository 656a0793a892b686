"""Layers equal their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import assert_close, jit, normal, randomised, shapes

from stunet.nn.layers import GroupNorm, add_bias
from stunet.nn.resizing import fold_patches, unfold_patches


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-5), (10.0, 1e-4), (100.0, 1e-2)])
def test_group_norm_equals_its_formula_frame_by_frame(mean, tolerance):
    """The one-pass variance loses digits as (mean / deviation)^2; at 100, two digits remain."""
    rng = np.random.default_rng(0)
    x = mean + rng.normal(size=(2, 3, 4, 5, 12))
    norm = GroupNorm(groups=4)
    params = randomised(shapes(norm, jnp.asarray(x, jnp.float32)))
    shift = rng.normal(size=(2, 24)).astype(np.float32)
    apply = jit(norm.apply)

    x = x.astype(np.float32)
    grouped = x.astype(np.float64).reshape(2, 3, 4, 5, 4, 3)  # four groups of three channels
    axes = (2, 3, 5)
    grouped = grouped - grouped.mean(axes, keepdims=True)
    grouped /= np.sqrt(np.square(grouped).mean(axes, keepdims=True) + 1e-5)
    scale, bias = (np.asarray(params["params"][k], np.float64) for k in ("scale", "bias"))
    want = grouped.reshape(x.shape) * scale + bias
    assert_close(apply(params, x), want, tolerance)
    factor, offset = np.split(shift[:, None, None, None], 2, axis=-1)
    assert_close(apply(params, x, shift), want * (1 + factor) + offset, tolerance)


def test_folding_patches_moves_each_square_into_channels_and_back():
    x = normal((2, 3, 4, 6, 5))
    folded = fold_patches(x, 2)
    assert folded.shape == (2, 3, 2, 3, 20)
    for dy, dx in np.ndindex(2, 2):
        channels = slice(5 * (2 * dy + dx), 5 * (2 * dy + dx + 1))
        np.testing.assert_array_equal(folded[..., channels], x[:, :, dy::2, dx::2])
    np.testing.assert_array_equal(unfold_patches(folded, 2), x)


def test_the_gradient_of_a_bias_is_summed_in_float32():
    # A sum of ones in bfloat16 stops growing at 256, and 2^16 + 1 needs more than its eight bits.
    y = jnp.zeros((2**16 + 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda bias: add_bias(y, bias).astype(jnp.float32).sum())(jnp.zeros(1))
    assert gradient.dtype == jnp.float32
    assert gradient[0] == 2**16 + 1
