"""Interpolated weights: exact at the ends, a straight line between, temporal weights kept."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from from_config import abstract_state, make_mesh

from stunet.errors import UserError
from stunet.nn import lora
from stunet.nn.parameters import is_temporal
from stunet.train.parts import make_parts
from stunet.weights.style import interpolate

BASE = tiny.config()
IMAGE = tiny.config(model=dict(temporal=False))
INPAINTING = tiny.config(masks=dict(inpaint=1.0))


def weights(config, seed):
    """Returns a network's parameters with random values."""
    rng = np.random.default_rng(seed)
    abstract = abstract_state(config, make_mesh(config)).params
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract)


def mix(config, *others):
    return interpolate(make_parts(config).denoiser.trainable, *others)


ORIGINAL, STYLE = weights(BASE, 0), weights(BASE, 1)


def bits(leaf):
    return np.asarray(leaf).view(np.uint32)


@pytest.mark.parametrize(("alpha", "end"), [(0, ORIGINAL), (1, STYLE)])
def test_the_ends_are_the_two_networks_bit_for_bit_on_spatial_weights(alpha, end):
    ours = jax.tree.map(np.copy, ORIGINAL)
    ours["conv_in"]["kernel"].flat[:2] = -0.0, np.inf
    mixed = flatten_dict(mix(BASE, ours, STYLE, alpha))
    ours, end = flatten_dict(ours), flatten_dict(ours if alpha == 0 else end)
    assert mixed.keys() == ours.keys()
    kinds = {is_temporal(path) for path in mixed}
    assert kinds == {True, False}
    for path, leaf in mixed.items():
        expected = ours if is_temporal(path) else end
        np.testing.assert_array_equal(bits(leaf), bits(expected[path]), err_msg=str(path))


def test_between_the_ends_weights_lie_on_a_straight_line():
    quarter, half = (flatten_dict(mix(BASE, ORIGINAL, STYLE, alpha)) for alpha in (0.25, 0.5))
    original = flatten_dict(ORIGINAL)
    for path, leaf in half.items():
        np.testing.assert_allclose(
            2 * quarter[path] - leaf, original[path], atol=1e-6, err_msg=str(path)
        )
    path = ("conv_in", "kernel")
    mean = (original[path] + flatten_dict(STYLE)[path]) / 2
    np.testing.assert_allclose(half[path], mean, atol=1e-6)


def test_a_text_to_image_network_is_style_enough():
    style = weights(IMAGE, 1)
    mixed = flatten_dict(mix(BASE, ORIGINAL, style, 1))
    np.testing.assert_array_equal(mixed["conv_out", "kernel"], style["conv_out"]["kernel"])
    temporal = [path for path in mixed if is_temporal(path)]
    assert temporal
    for path in temporal:
        np.testing.assert_array_equal(mixed[path], flatten_dict(ORIGINAL)[path])


def test_a_first_convolution_that_takes_a_mask_stays():
    original = weights(INPAINTING, 0)
    mixed = mix(INPAINTING, original, STYLE, 1)
    np.testing.assert_array_equal(mixed["conv_in"]["kernel"], original["conv_in"]["kernel"])
    np.testing.assert_array_equal(mixed["conv_out"]["kernel"], STYLE["conv_out"]["kernel"])


def test_weights_keep_the_type_that_they_are_stored_in():
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), ORIGINAL)
    mixed = mix(BASE, half, STYLE, 0.7)
    assert {leaf.dtype for leaf in jax.tree.leaves(mixed)} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("style", "sentence"),
    [
        (tiny.config(model=dict(channels=16)), r"conv_in/bias is of shape \(8,\) .* shape \(16,\)"),
        (tiny.config(model=dict(layers_per_level=2)), r"layer_1/.* is missing in the original"),
    ],
)
def test_another_architecture_is_refused(style, sentence):
    with pytest.raises(UserError, match=sentence):
        mix(BASE, ORIGINAL, weights(style, 1), 0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.2, float("nan")])
def test_alpha_out_of_range(alpha):
    with pytest.raises(UserError, match=r"alpha is .* 0 \(the original\) to 1"):
        mix(BASE, ORIGINAL, STYLE, alpha)


def test_the_original_is_left_as_it_was():
    before = jax.tree.map(np.copy, ORIGINAL)
    mix(dataclasses.replace(BASE, freeze="spatial"), ORIGINAL, STYLE, 0.5)
    jax.tree.map(np.testing.assert_array_equal, before, ORIGINAL)


def test_of_a_style_that_is_adapters_alpha_is_a_factor_of_them():
    adapters = lora.init(jax.random.key(0), ORIGINAL, 2)
    rng = np.random.default_rng(2)
    adapters = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), adapters)
    beside = unflatten_dict(flatten_dict(ORIGINAL) | flatten_dict(adapters))
    mixed = mix(BASE, ORIGINAL, lora.merge(beside, 1.5), 0.25)
    expected = lora.merge(beside, 0.25 * 1.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mixed, expected)
    # The run itself may train adapters.
    adapted = tiny.with_lora(BASE, rank=2)
    again = mix(adapted, ORIGINAL, lora.merge(beside, 1.5), 0.25)
    jax.tree.map(np.testing.assert_array_equal, again, mixed)
