"""Names of parameters in files do not depend on `scan_layers`."""

import jax
import numpy as np
import pytest
import tiny
from from_config import abstract_state, make_mesh

from stunet.nn import parameters
from stunet.nn.parameters import stack_layers

DEEP = dict(layers_per_level=3)


def abstract(**model):
    config = tiny.config(model=DEEP | model)
    return abstract_state(config, make_mesh(config)).params


@pytest.fixture(scope="module")
def params():
    """Returns random parameters of a network without scanned layers."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract())


def test_scanned_layers_have_the_names_and_values_of_unrolled_layers(params):
    stacked = jax.tree.map(np.asarray, stack_layers(params))
    assert len(jax.tree.leaves(stacked)) < len(jax.tree.leaves(params))
    expected, found = parameters.flatten(params), parameters.flatten(stacked)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_names_lead_back_to_the_parameters(params, scan_layers):
    like = abstract(scan_layers=scan_layers)
    tree = jax.tree.map(np.asarray, stack_layers(params) if scan_layers else params)
    named = parameters.flatten(tree)
    assert parameters.shapes(like) == {name: leaf.shape for name, leaf in named.items()}
    back = parameters.unflatten(named, like)
    assert jax.tree.structure(back) == jax.tree.structure(like)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), back, tree)


def test_names_that_files_rely_on():
    found = parameters.shapes(abstract())
    expected = {
        "conv_in.kernel": (1, 3, 3, 4, 8),
        "down_0_layer_2.resnet.conv1.kernel": (1, 3, 3, 8, 8),
        "down_1_layer_0.attention.to_q.kernel": (16, 16),
        "up_1_layer_3.temporal_0.to_out.bias": (16,),
        "down_0_resize_time.conv.kernel": (3, 1, 1, 8, 8),
        "text_pooling.positional_embedding": (1, 16),
    }
    assert expected.items() <= found.items()
