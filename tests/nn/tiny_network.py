"""A network that compiles in seconds, its parameters and its inputs."""

import functools

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from stunet.nn.stunet import STUNet

TEXT = (5, 12)  # tokens, features

# These tests spend their time compiling, so the compiler does not optimise.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def network(**changes) -> STUNet:
    """Returns a tiny network of two levels, with these fields changed."""
    return STUNet(
        **{
            "channels": (8, 8),
            "layers_per_level": 1,
            "attention_levels": (False, True),
            "temporal_factors": (1, 2),
            "temporal_attention_blocks": 1,
            "groups": 4,
            "text_groups": 4,
            "head_channels": 8,
            "text_features": 16,
            "text_pooling_heads": 2,
        }
        | changes
    )


@functools.cache
def compiled(net: STUNet):
    """Returns the jitted `net.apply`, the same for equal networks."""
    return jit(net.apply)


def shapes(module, *args):
    """Returns the abstract parameters of a module."""
    return nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *args))


def randomised(params, seed=0):
    """Returns random values for all parameters: no projection, bias or scale is left at 0 or 1.

    Random numbers here and below are NumPy's: compiling JAX's generator would take longer than the
    tests.
    """
    rng = np.random.default_rng(seed)
    flat = flax.traverse_util.flatten_dict(params)
    for path, leaf in flat.items():
        values = rng.normal(size=leaf.shape)
        spread = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        flat[path] = jnp.asarray((path[-1] == "scale") + spread * values, leaf.dtype)
    return flax.traverse_util.unflatten_dict(flat)


def normal(shape) -> jax.Array:
    """Returns a standard normal array, always the same for a shape."""
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def inputs(batch=2, frames=4, pixels=4, channels=3, seed=0):
    """Returns (clips, noise times, text states, text mask); captions have 2, 3, ... tokens."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, frames, pixels, pixels, channels))
    text = rng.normal(size=(batch, *TEXT))
    mask = np.arange(TEXT[0]) < np.arange(2, 2 + batch)[:, None]
    time = np.linspace(0.3, 0.7, batch)
    return *(jnp.asarray(a, jnp.float32) for a in (x, time, text)), jnp.asarray(mask)


def assert_close(got, want, tolerance):
    """Asserts that errors are at most `tolerance` times the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(want).max() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())
