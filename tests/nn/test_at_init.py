"""At initialisation, the Space-Time U-Net equals the spatial network on held frames, exactly."""

import functools
import re

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import TEXT, assert_close, inputs, jit, network, normal, randomised, shapes

from stunet.nn.blocks import TemporalDownsample, TemporalUpsample
from stunet.nn.stunet import STUNet

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")

FRAMES = 16


def held_frames(levels: int, factors) -> np.ndarray:
    """Returns the frame that each level sees in place of each frame k, `[levels, FRAMES]`.

    It is `f * (k // f)`, with f the product of the factors down to the level.
    """
    accumulated = np.cumprod(factors or (1,) * levels)[:, None]
    return accumulated * (np.arange(FRAMES) // accumulated)


@functools.cache
def spatial_network(family):
    """Returns random parameters of the spatial network, and `apply(params, indices, *args)`.

    `apply` computes all frames of a level, then replaces frame k by frame `indices[level, k]`. So
    it states the claim of stunet.py's docstring without any temporal layer.
    """
    net = deep_network(family, None)
    params = randomised(shapes(net, *inputs(frames=1)[:3]))

    @jit
    def apply(params, indices, *args):
        def hold(next_function, args, kwargs, context):
            y = next_function(*args, **kwargs)
            resize = re.fullmatch(r"down_(\d)_resize", context.module.name or "")
            return y[:, indices[int(resize[1]) + 1]] if resize else y

        with nn.intercept_methods(hold):
            return net.apply(params, *args)

    return params, apply


def deep_network(family, factors) -> STUNet:
    stable_diffusion = dict(attention_levels=(False, True, False), text_features=TEXT[1], heads=2)
    if family == "sdxl":
        stable_diffusion |= dict(pooled_text_features=8)
    return network(
        family=family,
        channels=(8, 8, 8),
        temporal_factors=factors,
        text_pooling_heads=0,
        groups=1,  # the coarsest level is one pixel: small groups would magnify rounding
        **(dict(attention_levels=(False, False, True)) if family == "if" else stable_diffusion),
    )


FACTORS = [(1, 1, 1), (1, 2, 1), (1, 2, 2), (1, 2, 4)]
NETWORKS = [*(("if", factors) for factors in FACTORS), ("sd1", (1, 2, 4)), ("sdxl", (1, 2, 4))]


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def at_init(request):
    """Returns (family, factors, clips, output of the new temporal network, other inputs).

    Clip 0 is random, clip 1 static, clip 2 constant over N frames. Clip 3 + j is clip 0 with frame
    j changed.
    """
    family, factors = request.param
    spatial, _ = spatial_network(family)
    x, time, text, mask = inputs(1, FRAMES)
    blocks = np.prod(factors) * (np.arange(FRAMES) // np.prod(factors))
    changed = x + 3 * jnp.eye(FRAMES)[:, :, None, None, None] * inputs(1, FRAMES, seed=1)[0]
    clips = jnp.concatenate([x, x[:, [5] * FRAMES], x[:, blocks], changed])
    text, mask, time = (jnp.repeat(a, len(clips), axis=0) for a in (text, mask, time))
    net = deep_network(family, factors)

    @jit
    def run(spatial, *args):
        params = nn.unbox(net.init(jax.random.key(0), *args))
        flat = flax.traverse_util.flatten_dict(params)
        common = flax.traverse_util.flatten_dict(spatial)
        assert common.keys() < flat.keys()
        params = flax.traverse_util.unflatten_dict(flat | common)
        return net.apply(params, *args)

    rest = (time, text, mask)
    return family, factors, clips, run(spatial, clips, *rest), rest


def spatial_outputs(at_init, factors):
    """Returns the spatial network's output for clips 0 to 2, with the held frames of `factors`."""
    family, _, clips, _, rest = at_init
    params, apply = spatial_network(family)
    return apply(params, held_frames(3, factors), clips[:3], *(a[:3] for a in rest))


def test_at_init_output_is_the_spatial_networks_for_the_frames_each_level_holds(at_init):
    _, factors, _, outputs, _ = at_init
    assert_close(outputs[:3], spatial_outputs(at_init, factors), 1e-5)


def test_at_init_every_nth_frame_is_the_spatial_networks(at_init):
    _, factors, _, outputs, _ = at_init
    n = np.prod(factors)
    spatial = spatial_outputs(at_init, None)
    assert_close(outputs[0, ::n], spatial[0, ::n], 1e-5)
    if n > 1:  # The other frames differ, so the temporal resizing has an effect.
        assert np.abs(outputs[0] - spatial[0]).max(axis=(1, 2, 3))[1] > 1e-2


@pytest.mark.parametrize(("clip", "name"), [(1, "static"), (2, "constant over N frames")])
def test_at_init_a_clip_that_is_constant_over_n_frames_gives_the_spatial_output(
    at_init, clip, name
):
    _, _, _, outputs, _ = at_init
    assert_close(outputs[clip], spatial_outputs(at_init, None)[clip], 1e-5)


def test_at_init_frame_k_depends_on_exactly_the_frames_that_levels_hold_for_it(at_init):
    _, factors, _, outputs, _ = at_init
    difference = np.abs(outputs[3:] - outputs[0]).max(axis=(2, 3, 4))  # [changed frame, frame]
    depends = np.zeros((FRAMES, FRAMES), bool)
    for frames in held_frames(3, factors):
        depends[frames, np.arange(FRAMES)] = True
    assert np.all(difference[depends] > 1e-3)
    assert np.all(difference[~depends] < 1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_temporal_resizing_at_init_is_nearest_neighbour(factor):
    clip = normal((2, FRAMES, 2, 3, 5))
    constant = jnp.broadcast_to(clip[:, :1], clip.shape)
    down, up = TemporalDownsample(factor=factor), TemporalUpsample(factor=factor)

    @jit
    def both(x):
        small = down.apply(down.init(jax.random.key(1), x), x)
        large = up.apply(up.init(jax.random.key(1), x), x)
        return small, large, up.apply(up.init(jax.random.key(1), small), small)

    for result in both(constant):
        np.testing.assert_array_equal(result, constant[:, :1].repeat(result.shape[1], 1))
    small, large, same = both(clip)
    np.testing.assert_array_equal(small, clip[:, ::factor])
    np.testing.assert_array_equal(large, np.repeat(clip, factor, axis=1))
    np.testing.assert_array_equal(same, np.repeat(clip[:, ::factor], factor, axis=1))
