"""The fused kernel of attention equals attention by its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from stunet.nn import attention


@pytest.mark.parametrize("left_out", [0, 300])
def test_the_kernel_computes_attention_and_its_gradients(left_out):
    """Holds for several blocks of queries and keys, and where nearly a block of keys is masked.

    The mask leaves out the first keys of the second clip.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    lengths = (640, 768, 768, 640)
    query, key, value, dy = (
        jax.random.normal(k, (2, 2, n, 1, 128)) for k, n in zip(keys, lengths, strict=True)
    )
    allowed = jnp.arange(768)[None] >= jnp.array([[0], [left_out]])

    def with_gradients(attend):
        y, backward = jax.vjp(lambda *arrays: attend(*arrays, allowed), query, key, value)
        return y, *backward(dy)

    with pltpu.force_tpu_interpret_mode():
        got = jax.jit(lambda: with_gradients(attention._pallas_attention))()
    for mine, defined in zip(got, with_gradients(attention.frame_attention), strict=True):
        np.testing.assert_allclose(mine, defined, atol=2e-6 * float(jnp.abs(defined).max()) + 1e-6)
    # Values that are left out have no gradient.
    assert left_out == 0 or float(jnp.abs(got[2][1, :, :left_out]).max()) == 0


@pytest.mark.parametrize(("length", "features"), [(128, 8), (64, 128)])
def test_shapes_that_do_not_suit_the_kernel_take_frame_attention(monkeypatch, length, features):
    def refuse(*_):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(attention, "_pallas_attention", refuse)
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (1, 1, length, 1, features)) for key in keys]
    np.testing.assert_array_equal(
        jax.jit(attention.flash_attention)(*arrays), jax.jit(attention.frame_attention)(*arrays)
    )
    # Shapes that suit it do call it: a trace holds the forms of all platforms.
    suitable = jax.ShapeDtypeStruct((1, 1, 128, 1, 128), jnp.float32)
    with pytest.raises(AssertionError, match="the kernel was called"):
        jax.eval_shape(attention.flash_attention, suitable, suitable, suitable)
