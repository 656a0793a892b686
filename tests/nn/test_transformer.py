"""The spatial transformer: what it depends on, and what rematerialisation leaves as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import assert_close, inputs, jit, randomised, shapes

from stunet.nn.remat import REMAT_POLICIES
from stunet.nn.transformer import SpatialTransformer

X, _, TEXT, MASK = inputs(frames=2, channels=8)


def transformer(**changes):
    return SpatialTransformer(
        **{"depth": 2, "head_channels": 4, "groups": 2, "linear": False} | changes
    )


@functools.cache
def params():
    return randomised(shapes(transformer(), X, TEXT, MASK))


def apply(x, text, mask):
    return jit(transformer().apply)(params(), x, text, mask)


def test_frames_do_not_see_one_another_and_positions_do():
    want = apply(X, TEXT, MASK)
    changed = apply(X.at[0, 1, 0, 0].add(1.0), TEXT, MASK)
    differs = np.abs(changed - want).max(axis=-1) > 1e-6
    assert np.all(differs[0, 1])
    assert not np.any(differs[1])
    assert not np.any(differs[0, 0])


def test_masked_tokens_have_no_effect_and_the_others_do():
    want = apply(X, TEXT, MASK)
    assert_close(apply(X, jnp.where(MASK[..., None], TEXT, 9.0), MASK), want, 1e-6)
    assert np.abs(apply(X, -TEXT, MASK) - want).max() > 1e-2
    # A caption that is dropped has states of zero and no tokens: it gives the bias alone.
    dropped = apply(X, 0 * TEXT, 0 * MASK == 1)
    assert np.all(np.isfinite(dropped))
    assert_close(dropped, apply(X, 0 * TEXT, None), 1e-6)


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_remat_changes_no_gradient(policy):
    def gradients(remat):
        def loss(params):
            return jnp.sum(jnp.sin(transformer(remat=remat).apply(params, X, TEXT, MASK)))

        return jax.tree.leaves(jit(jax.grad(loss))(params()))

    for got, want in zip(gradients(policy), gradients("none"), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max() + 1e-7)
