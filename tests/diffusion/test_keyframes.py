"""Temporal super-resolution sees the keyframes in their places, and no other clean frame."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion import keyframes

RNG = np.random.default_rng(0)
CLIPS = RNG.uniform(-1, 1, (4, 16, 4, 4, 3)).astype(np.float32)
NOISY = RNG.normal(size=CLIPS.shape).astype(np.float32)


def make_input(clips, stride, max_level):
    drawn = keyframes.draw(jax.random.key(1), jnp.asarray(clips), stride, max_level)
    return keyframes.network_input(jnp.asarray(NOISY), *drawn)


@pytest.mark.parametrize("stride", [3, 5, 15])
def test_at_augmentation_level_0_the_network_sees_the_keyframes_exactly(stride):
    joined = np.asarray(make_input(CLIPS, stride, 0.0))
    assert joined.shape == (*CLIPS.shape[:-1], 8)
    at = np.arange(16) % stride == 0
    assert at[0]
    assert at[-1]
    noisy, placed, mask, level = np.split(joined, [3, 6, 7], axis=-1)
    np.testing.assert_array_equal(noisy, NOISY)
    np.testing.assert_array_equal(placed[:, at], CLIPS[:, at])
    np.testing.assert_array_equal(mask, np.broadcast_to(at[:, None, None, None], mask.shape))
    assert not placed[:, ~at].any()
    assert not level.any()


def test_the_input_does_not_depend_on_hidden_frames():
    weights = jnp.asarray(RNG.normal(size=(*CLIPS.shape[:-1], 8)), jnp.float32)
    gradient = jax.grad(lambda clips: (weights * make_input(clips, 5, 0.5)).sum())(
        jnp.asarray(CLIPS)
    )
    at = np.arange(16) % 5 == 0
    assert not np.asarray(gradient)[:, ~at].any()
    assert np.asarray(gradient)[:, at].all()


def test_the_plane_holds_the_level_of_the_noise_in_the_keyframes():
    clips = jnp.zeros((200, 3, 8, 8, 1))
    corrupted, level = keyframes.draw(jax.random.key(0), clips, 2, 0.6)
    assert corrupted.shape == (200, 2, 8, 8, 1)
    assert 0 <= level.min() < 0.02 < 0.58 < level.max() <= 0.6
    spread = np.asarray(corrupted).std(axis=(1, 2, 3, 4))
    np.testing.assert_allclose(spread, np.sin(np.pi / 2 * level), atol=0.15)
    joined = keyframes.network_input(clips, corrupted, level)
    planes = np.broadcast_to(level[:, None, None, None], clips.shape[:-1])
    np.testing.assert_array_equal(joined[..., 3], planes)
