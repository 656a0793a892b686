"""The TPU form of resizing in space equals the plain form, with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.nn import resizing

PAIRS = {
    "average": (resizing._average_by_windows, resizing._average_by_reshape),
    "repeat": (resizing._repeat_by_windows, resizing._repeat_by_reshape),
}


@pytest.mark.parametrize("name", PAIRS)
def test_windows_equal_the_definition(name):
    x = jax.random.normal(jax.random.key(0), (2, 3, 8, 6, 4))
    windows, definition = (jax.vjp(form, x) for form in PAIRS[name])
    np.testing.assert_allclose(windows[0], definition[0], rtol=1e-6, atol=1e-6)
    dy = jnp.cos(definition[0])
    np.testing.assert_allclose(windows[1](dy)[0], definition[1](dy)[0], rtol=1e-6, atol=1e-6)
