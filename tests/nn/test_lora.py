"""Low-rank adapters: no change at first, then W + scale A B, a change of at most their rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from from_config import abstract_state
from jax.sharding import AbstractMesh

from stunet.nn import lora
from stunet.nn.parameters import is_temporal
from stunet.parallel import mesh as meshes

RANK, SCALE = 2, 0.75
MESH = AbstractMesh((1, 1, 2, 1, 2), meshes.AXES)
# Has layers with arrays of their own and, on the way down, two equal layers in one array.
CONFIG = tiny.config(model=dict(layers_per_level=3, scan_layers=True))


def normal(tree, seed):
    """Returns a tree of normal leaves with the shapes of `tree`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)


@pytest.fixture(scope="module")
def abstract():
    """Returns the network's abstract parameters, on a mesh that splits both axes of weights."""
    return abstract_state(CONFIG, MESH).params


@pytest.fixture(scope="module")
def trees(abstract):
    """Returns the network's parameters, its initial adapters, and random adapters."""
    params = normal(abstract, 0)
    first = lora.init(jax.random.key(0), params, RANK)
    return params, first, normal(first, 1)


def split_over(leaf):
    """Returns the mesh axis that splits each axis of a leaf, or None."""
    spec = leaf.sharding.spec
    return (*spec, *[None] * (leaf.ndim - len(spec)))


def is_stacked(path):
    return any(name.endswith("_layers") for name in path)


def beside(params, adapters):
    return unflatten_dict(flatten_dict(params) | flatten_dict(adapters))


def matrices(kernel, stacked):
    """Reshapes a kernel to `[layers, inputs, outputs]`; layers is 1 unless it is stacked."""
    return np.asarray(kernel).reshape(len(kernel) if stacked else 1, -1, kernel.shape[-1])


def test_initial_adapters_change_no_bit_of_the_network(trees):
    params, first, _ = trees
    jax.tree.map(np.testing.assert_array_equal, lora.merge(beside(params, first), SCALE), params)
    factors = flatten_dict(first)
    assert all(np.any(leaf) == (path[-1] == lora.A) for path, leaf in factors.items())
    # The variance is 1 / inputs, so that the inputs of B are as large as those of W.
    for path, a in factors.items():
        if path[-1] == lora.A and a.size > 500:
            stacked = is_stacked(path)
            inputs = a.size / RANK / (len(a) if stacked else 1)
            assert np.std(a) == pytest.approx(inputs**-0.5, rel=0.2), path


def test_spatial_kernels_and_no_others_have_adapters(trees):
    params, first, _ = trees
    adapted = {path[:-1] for path in flatten_dict(first)}
    kernels = {path[:-1] for path in flatten_dict(params) if path[-1] == "kernel"}
    assert adapted == {path for path in kernels if not is_temporal(path)}
    assert kernels - adapted
    # These include convolutions, attention and the text projection.
    ends = {path[-1] for path in adapted}
    assert {"conv1", "conv_in", "to_q", "add_v_proj", "to_out", "text_proj"} <= ends


def test_a_merged_kernel_equals_the_formula_and_its_change_has_the_rank(trees):
    params, _, adapters = trees
    merged = flatten_dict(lora.merge(beside(params, adapters), SCALE))
    before, factors = flatten_dict(params), flatten_dict(adapters)
    assert merged.keys() == before.keys()
    layers = 0
    for path, kernel in merged.items():
        if (*path[:-1], lora.A) not in factors or path[-1] != "kernel":
            np.testing.assert_array_equal(kernel, before[path], err_msg=str(path))
            continue
        stacked = is_stacked(path)
        old, new = (matrices(k, stacked) for k in (before[path], kernel))
        a = matrices(factors[*path[:-1], lora.A], stacked)
        b = factors[*path[:-1], lora.B].reshape(len(old), RANK, -1)
        for w, w2, one_a, one_b in zip(old, new, a, b, strict=True):
            np.testing.assert_allclose(w2, w + SCALE * one_a @ one_b, atol=1e-5, err_msg=str(path))
            values = np.linalg.svd(w2 - w, compute_uv=False)
            assert (values > 1e-4 * values[0]).sum() == min(RANK, *w.shape), path
            layers += 1
    assert layers == sum(
        len(matrices(k, True)) if "_layers" in p[0] else 1
        for p, k in before.items()
        if lora.is_adapted(p)
    )


def test_kernels_keep_their_dtype(trees):
    params, _, adapters = trees
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    merged = lora.merge(beside(half, adapters), SCALE)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


def test_adapters_lie_on_a_mesh_as_their_kernels_do(abstract):
    kernels, seen = flatten_dict(abstract), set()
    for path, leaf in flatten_dict(
        abstract_state(tiny.with_lora(CONFIG, rank=2), MESH).params
    ).items():
        kernel, found = (split_over(x) for x in (kernels[*path[:-1], "kernel"], leaf))
        stacked = kernel[:1] if is_stacked(path) else ()
        expected = (*kernel[:-1], None) if path[-1] == lora.A else (*stacked, None, kernel[-1])
        assert found == expected, path
        seen |= {*found}
    assert seen == {None, "fsdp", "tensor"}
