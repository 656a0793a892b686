"""Every weight learns. Rematerialisation, scanned layers and bfloat16 change no result."""

import functools
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_network import (
    assert_close,
    compiled,
    inputs,
    jit,
    network,
    normal,
    randomised,
    shapes,
)

from stunet.nn.parameters import stack_layers
from stunet.nn.remat import REMAT_POLICIES

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")


def test_every_parameter_learns_from_the_second_step_on():
    """After one step every weight has a gradient, except one that never can.

    At initialisation, weights behind a zero projection have no gradient. The bias of the keys in
    text pooling never has one: it moves all logits alike.
    """
    net = network()
    args = inputs(frames=8)
    target = normal(args[0].shape)

    @jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean((net.apply(p, *args) - target) ** 2))(params)

    # The spatial network is trained, and the temporal projections are at their initial zero.
    params = randomised(shapes(net, *args))
    projections = re.compile(r"temporal/proj/kernel|temporal_0/to_out/kernel")
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    flat |= {path: 0 * leaf for path, leaf in flat.items() if projections.search(path)}
    params = flax.traverse_util.unflatten_dict(flat, sep="/")

    def dead(gradient):
        flat = flax.traverse_util.flatten_dict(gradient["params"], sep="/")
        return {path for path, g in flat.items() if np.abs(g).max() < 1e-7}

    first = gradient(params)
    assert any("temporal/conv_temporal" in path for path in dead(first))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, first)
    assert dead(gradient(params)) == {"text_pooling/k_proj/bias"}


@functools.cache
def unrolled_gradients(layers):
    """Returns (network, params, loss, gradients) for one level, without remat and scan."""
    net = network(
        channels=(8,),
        attention_levels=(False,),
        temporal_factors=(1,),
        text_features=0,
        layers_per_level=layers,
    )
    params = randomised(shapes(net, *inputs()[:2]))
    return net, params, *loss_and_gradients(net, params)


def loss_and_gradients(net, params):
    x, time, _, _ = inputs()
    return jit(jax.value_and_grad(lambda p: jnp.sum(net.apply(p, x, time) ** 2)))(params)


def assert_same_gradients(got, want):
    jax.tree.map(functools.partial(_assert_same_gradient), got, want)


def _assert_same_gradient(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * max(np.abs(want).max(), 1e-3))


@pytest.mark.parametrize("policy", REMAT_POLICIES)
def test_remat_changes_no_gradient(policy):
    net, params, loss, want = unrolled_gradients(1)
    got_loss, got = loss_and_gradients(net.clone(remat=policy), params)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    assert_same_gradients(got, want)


def test_scanned_layers_equal_unrolled_ones():
    """Holds together with remat, as deep networks use both."""
    net, params, loss, want = unrolled_gradients(3)
    scanned = net.clone(scan_layers=True, remat="full")
    stacked = {"params": stack_layers(params["params"])}
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, shapes(scanned, *inputs()[:2])
    )
    got_loss, got = loss_and_gradients(scanned, stacked)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    assert_same_gradients(got["params"], stack_layers(want["params"]))


def test_bfloat16_compute_is_close_and_keeps_float32_outside():
    net, args = network(), inputs()
    half = net.clone(dtype=jnp.bfloat16)
    params = randomised(shapes(net, *args))
    assert {a.dtype for a in jax.tree.leaves(shapes(half, *args))} == {jnp.dtype("float32")}
    want, got = compiled(net)(params, *args), compiled(half)(params, *args)
    assert got.dtype == want.dtype == jnp.float32
    # bfloat16 rounds by a relative 2^-9, here through some forty layers in sequence.
    assert_close(got, want, 0.06)
    assert np.abs(got - want).mean() < 0.01 * np.abs(want).max()
