"""Low-resolution clips of super-resolution: resizing, augmentation and the network's input."""

import math

import jax
import numpy as np
import pytest

from stunet.diffusion import augmentation, upscaling

CLIPS = np.random.default_rng(0).uniform(-1, 1, (8, 2, 24, 16, 3)).astype(np.float32)

shrink = jax.jit(upscaling.shrink, static_argnums=1)
enlarge = jax.jit(upscaling.enlarge, static_argnums=1)
network_input = jax.jit(upscaling.network_input)
resize = jax.jit(jax.image.resize, static_argnums=(1, 2))


def drawn(clips, factor, max_level):
    draw = jax.jit(upscaling.draw, static_argnums=(2, 3))
    low, level = draw(jax.random.key(1), clips, factor, max_level)
    return np.asarray(low), np.asarray(level)


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarging_is_bilinear_interpolation(factor):
    b, t, h, w, c = CLIPS.shape
    expected = resize(CLIPS, (b, t, h * factor, w * factor, c), "bilinear")
    np.testing.assert_allclose(enlarge(CLIPS, factor), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 8])
def test_constant_frames_survive_and_linear_ones_except_at_the_border(factor):
    rows, columns = np.arange(24)[:, None, None], np.arange(16)[:, None]
    ramp = np.broadcast_to(0.03 * rows - 0.02 * columns, CLIPS.shape[1:])
    constant = np.broadcast_to(CLIPS[:1, :, :1, :1], CLIPS[:1].shape)
    clips = np.concatenate([constant, ramp[None]]).astype(np.float32)
    back = enlarge(shrink(clips, factor), factor)
    np.testing.assert_allclose(back[0], clips[0], rtol=1e-6)
    inside = slice(factor // 2, -(factor // 2) or None)
    np.testing.assert_allclose(back[1][:, inside, inside], ramp[:, inside, inside], atol=1e-6)


def test_shrinking_averages_blocks_of_pixels():
    small = shrink(CLIPS, 4)
    assert small.shape == (8, 2, 6, 4, 3)
    np.testing.assert_allclose(small[:, :, 1, 2], CLIPS[:, :, 4:8, 8:12].mean((2, 3)), atol=1e-6)


def test_augmentation_level_0_gives_exactly_the_enlarged_low_resolution_clip():
    low, level = drawn(CLIPS, 4, 0.0)
    assert not level.any()
    conditioning = network_input(np.zeros_like(CLIPS), low, level)[..., 3:6]
    np.testing.assert_array_equal(conditioning, enlarge(shrink(CLIPS, 4), 4))


def test_corruption_keeps_the_variance_and_level_1_is_noise_alone():
    low, noise = np.random.default_rng(1).normal(size=(2, 5, 4, 64, 64, 3)).astype(np.float32)
    level = np.linspace(0, 1, 5, dtype=np.float32)
    corrupted = np.asarray(jax.jit(augmentation.corrupt)(low, level, noise))
    np.testing.assert_array_equal(corrupted[0], low[0])
    np.testing.assert_allclose(corrupted[-1], noise[-1], atol=1e-5)
    # The covariance with the noise is the noise's factor.
    axes = (1, 2, 3, 4)
    factor = (corrupted * noise).mean(axes)
    np.testing.assert_allclose(factor, np.sin(math.pi / 2 * level), atol=0.03)
    np.testing.assert_allclose(corrupted.var(axes), 1, atol=0.03)


def test_levels_are_uniform_up_to_the_largest_and_set_the_noise():
    # The clips are zero, so only the noise remains.
    low, level = drawn(np.zeros((1000, 1, 16, 16, 1), np.float32), 2, 0.6)
    assert level.min() >= 0
    assert level.max() <= 0.6
    np.testing.assert_allclose(np.quantile(level, [0.25, 0.5, 0.75]), [0.15, 0.3, 0.45], atol=0.04)
    expected = np.sin(math.pi / 2 * level) ** 2
    for half in (level > 0.3, level <= 0.3):
        assert low[half].var() == pytest.approx(expected[half].mean(), rel=0.05)


def test_network_input_is_noisy_clip_low_resolution_clip_and_level():
    low, level = drawn(CLIPS, 8, 1.0)
    joined = network_input(CLIPS, low, level)
    assert joined.shape == (*CLIPS.shape[:-1], 7)
    np.testing.assert_array_equal(joined[..., :3], CLIPS)
    np.testing.assert_allclose(joined[..., 3:6], enlarge(low, 8), atol=1e-6)
    planes = np.broadcast_to(level[:, None, None, None], CLIPS.shape[:-1])
    np.testing.assert_array_equal(joined[..., 6], planes)
