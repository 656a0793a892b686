"""The parts of a step outside the network are the step's own code, without the network."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from stunet.parallel import mesh as meshes
from stunet.plan import outside
from stunet.train.parts import make_parts


@pytest.mark.parametrize("name", outside.PROGRAMS)
def test_programs_outside_the_network_compile_and_multiply_no_matrices(name):
    parts = make_parts(tiny.config(model=tiny.ONE_LEVEL_KEYS))
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh, parts.layout.context_axis):
        lowered = outside.PROGRAMS[name](parts, mesh)
    text = lowered.as_text()
    assert "stablehlo.convolution" not in text
    assert "stablehlo.dot_general" not in text
    if name == "update":
        # It returns the whole state and the metrics.
        state = lowered.in_avals[0][0]
        after, metrics = lowered.out_info
        assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, after)
        assert {"loss", "grad_norm"} <= set(metrics)
    else:
        (loss, inputs), gradient = lowered.out_info
        (x, *_), *_ = inputs
        assert loss.shape == ()
        assert x.shape == parts.denoiser.input_shape(parts.batch_size)
        assert gradient.shape[:-1] == x.shape[:-1]
