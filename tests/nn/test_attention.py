"""The fused kernels of attention equal attention by its definition, and run where they can."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as jax_cudnn
from jax.experimental.pallas import tpu as pltpu

from stunet.nn import attention
from stunet.nn.transformer import SpatialTransformer

CUDNN_CALL = re.compile(r"__cudnn\$fmhaSoftmax(?:Backward)?")
TRAINING = ["__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"]


def normal(*shapes, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(k, shape, dtype) for k, shape in zip(keys, shapes, strict=True)]


def with_gradients(attend, query, key, value, dy, lengths):
    y, backward = jax.vjp(lambda *arrays: attend(*arrays, lengths), query, key, value)
    return y, *backward(dy)


def assert_close(got, defined, tolerance):
    """Compares outputs and gradients; `tolerance` is relative to the largest value of an array."""
    for mine, of_definition in zip(got, defined, strict=True):
        mine, of_definition = (np.asarray(a, np.float32) for a in (mine, of_definition))
        np.testing.assert_allclose(
            mine, of_definition, atol=tolerance * np.abs(of_definition).max() + 1e-6
        )


@pytest.mark.parametrize(("left_out", "features"), [(0, 128), (300, 40)])
def test_the_kernel_computes_attention_and_its_gradients(left_out, features):
    """Holds for several blocks of queries and keys, and where nearly a block of keys is masked.

    It also holds for heads that are narrower than a tile. The mask leaves out the last keys of the
    second clip.
    """
    arrays = normal(*((2, 2, n, 1, features) for n in (640, 768, 768, 640)))
    lengths = jnp.array([768, 768 - left_out], jnp.int32)
    with pltpu.force_tpu_interpret_mode():
        got = jax.jit(lambda: with_gradients(attention._pallas_attention, *arrays, lengths))()
    assert_close(got, with_gradients(attention._plain_attention, *arrays, lengths), 2e-6)
    # Values that are left out have no gradient.
    assert left_out == 0 or float(jnp.abs(got[3][1, :, -left_out:]).max()) == 0


@pytest.mark.parametrize(("length", "features"), [(128, 8), (64, 128)])
def test_shapes_that_do_not_suit_the_kernel_take_frame_attention(monkeypatch, length, features):
    def refuse(*_):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(attention, "_pallas_attention", refuse)
    arrays = normal(*[(1, 1, length, 1, features)] * 3)
    np.testing.assert_array_equal(
        jax.jit(attention.flash_attention)(*arrays), jax.jit(attention.frame_attention)(*arrays)
    )
    # Shapes that suit it do call it: a trace holds the forms of all platforms.
    suitable = jax.ShapeDtypeStruct((1, 1, 128, 1, 128), jnp.float32)
    with pytest.raises(AssertionError, match="the kernel was called"):
        jax.eval_shape(attention.flash_attention, suitable, suitable, suitable)


def calls_of_cudnn(function, *arrays, platform="cuda"):
    """Returns cuDNN's kernels in the program of `function` for a platform, in their order."""
    traced = jax.jit(lambda *a: function(*a)).trace(*arrays)  # a new function: nothing is cached
    return CUDNN_CALL.findall(traced.lower(lowering_platforms=(platform,)).as_text())


@pytest.fixture
def cudnn(monkeypatch):
    """JAX's CUDA plugin seems to be installed, with cuDNN 9.10."""
    monkeypatch.setattr(jax_cudnn, "check_cudnn_version", lambda: 91000)


@pytest.mark.parametrize(
    ("dtype", "features", "keys", "platform", "calls"),
    [
        (jnp.bfloat16, 64, 58, "cuda", TRAINING),
        (jnp.float16, 8, 58, "cuda", TRAINING),
        (jnp.bfloat16, 128, 2, "cuda", TRAINING),
        (jnp.float32, 64, 58, "cuda", []),
        (jnp.bfloat16, 12, 58, "cuda", []),
        (jnp.bfloat16, 264, 58, "cuda", []),
        (jnp.bfloat16, 64, 57, "cuda", []),
        (jnp.bfloat16, 64, 58, "cpu", []),
        (jnp.bfloat16, 64, 58, "tpu", []),
    ],
)
def test_programs_for_gpus_call_cudnn_where_it_can_compute_them(
    cudnn, dtype, features, keys, platform, calls
):
    query, key = ((2, 3, n, 2, features) for n in (50, keys))
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (query, key, key, query)]
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    step = functools.partial(with_gradients, attention.flash_attention)
    assert calls_of_cudnn(step, *shapes, lengths, platform=platform) == calls


def test_without_the_plugin_programs_for_gpus_hold_the_plain_form(monkeypatch):
    monkeypatch.setattr(jax_cudnn, "cuda_versions", None)
    shape = jax.ShapeDtypeStruct((1, 2, 16, 2, 64), jnp.bfloat16)
    assert calls_of_cudnn(attention.flash_attention, shape, shape, shape) == []


def test_cudnn_gets_each_frame_s_keys_and_their_number(monkeypatch):
    """JAX's own attention takes cuDNN's place, with the arguments that cuDNN would get."""
    of_jax = jax.nn.dot_product_attention
    arrays = normal(*((2, 3, n, 2, 8) for n in (16, 24, 24, 16)))
    lengths = jnp.array([24, 17], jnp.int32)
    defined = with_gradients(attention._plain_attention, *arrays, lengths)
    monkeypatch.setattr(
        jax.nn, "dot_product_attention", lambda *a, implementation, **k: of_jax(*a, **k)
    )
    assert_close(with_gradients(attention._cudnn_attention, *arrays, lengths), defined, 1e-6)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU, and JAX_PLATFORMS=cuda")
@pytest.mark.parametrize("features", [64, 128])
def test_cudnn_computes_attention_and_its_gradients(features):
    shapes = ((2, 3, n, 2, features) for n in (256, 288, 288, 256))
    arrays = normal(*shapes, dtype=jnp.bfloat16)
    lengths = jnp.array([288, 259], jnp.int32)
    step = functools.partial(with_gradients, attention.flash_attention)
    assert calls_of_cudnn(step, *arrays, lengths) == TRAINING
    exact = (a.astype(jnp.float32) for a in arrays)
    defined = with_gradients(attention._plain_attention, *exact, lengths)
    # bfloat16 rounds to 2**-8, and gradients are rounded twice.
    assert_close(jax.jit(step)(*arrays, lengths), defined, 2e-2)


def text_block(flash, text_only=False, dtype=jnp.float32):
    return attention.TextAttention(
        head_channels=8, groups=4, text_groups=4, flash=flash, text_only=text_only, dtype=dtype
    )


# The tokens that take part need not be the first ones. The second clip has no caption.
MASK = jnp.array([[False, True, True, False, True, True], [False] * 6])


@pytest.mark.parametrize("mask", [MASK, None], ids=["masked", "all tokens"])
def test_the_block_computes_the_same_with_and_without_the_kernel(mask):
    x, text = normal((2, 3, 4, 4, 16), (2, 6, 12))
    params = nn.meta.unbox(text_block(False).init(jax.random.key(1), x, text, mask))

    def outcome(flash):
        def loss(params, x, text):
            return jnp.sum(jnp.sin(text_block(flash).apply(params, x, text, mask)))

        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(params, x, text))

    assert_close(outcome(True), outcome(False), 1e-5)


@pytest.mark.parametrize(
    ("text_only", "with_text", "calls"),
    [(False, True, TRAINING[:1]), (False, False, TRAINING[:1]), (True, True, [])],
)
def test_the_block_calls_cudnn_unless_it_sees_the_text_alone(cudnn, text_only, with_text, calls):
    x, text = normal((2, 3, 4, 4, 16), (2, 6, 12), dtype=jnp.bfloat16)
    given = (x, text, MASK) if with_text else (x,)
    block = text_block(True, text_only, jnp.bfloat16)
    params = jax.eval_shape(block.init, jax.random.key(1), *given)
    assert calls_of_cudnn(block.apply, params, *given) == calls


@pytest.mark.parametrize("flash", [True, False])
def test_transformers_call_cudnn_for_self_attention_alone(cudnn, flash):
    x, text = normal((2, 3, 4, 4, 16), (2, 6, 12), dtype=jnp.bfloat16)
    block = SpatialTransformer(
        depth=2, head_channels=8, groups=4, linear=True, flash=flash, dtype=jnp.bfloat16
    )
    params = jax.eval_shape(block.init, jax.random.key(0), x, text, MASK)
    assert calls_of_cudnn(block.apply, params, x, text, MASK) == 2 * flash * TRAINING[:1]


def test_transformers_take_the_kernel_of_tpus_with_heads_of_any_width(monkeypatch):
    def refuse(*_):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(attention, "_pallas_attention", refuse)
    x = jax.ShapeDtypeStruct((1, 2, 8, 16, 16), jnp.float32)
    block = SpatialTransformer(depth=1, head_channels=8, groups=4, linear=True, flash=True)
    with pytest.raises(AssertionError, match="the kernel was called"):
        jax.eval_shape(block.init, jax.random.key(0), x)
