"""Each platform's form of a convolution equals XLA's plain one: forward and both gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import stunet.nn.conv as conv_module
from stunet.nn.conv import (
    conv,
    repeated_temporal_conv,
    strided_spatial_conv,
    strided_temporal_conv,
)
from stunet.nn.platforms import assume_platform

KERNELS = [(1, 3, 3), (3, 1, 1), (3, 3, 3)]


def reference(x, kernel):
    padding = [((k - 1) // 2, (k - 1) // 2) for k in kernel.shape[:3]]
    axes = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=axes)


# These tests spend their time compiling, so the compiler does not optimise.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@jit
def results(x, kernel, dy):
    """Returns (output, dx, dkernel) of `conv`, and of the reference in float32."""
    y, vjp = jax.vjp(conv, x, kernel)
    exact = [a.astype(jnp.float32) for a in (x, kernel, dy)]
    want, want_vjp = jax.vjp(reference, *exact[:2])
    return (y, *vjp(dy)), (want, *want_vjp(exact[2]))


def arrays(batch, size, dtype, frame=(5, 4)):
    # By NumPy: compiling JAX's generator would take longer than the tests.
    rng = np.random.default_rng(0)
    shapes = (batch, 6, *frame, 3), (*size, 3, 7), (batch, 6, *frame, 7)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def assert_close(got, want, tolerance):
    """Asserts that errors are at most `tolerance` times the largest value."""
    want = np.asarray(want)
    error = np.abs(np.asarray(got, np.float32) - want).max()
    assert error <= tolerance * np.abs(want).max()


@pytest.fixture(params=["one_group", "many_groups"])
def grouping(request, monkeypatch):
    """Gathers the patches of all clips at once, or of as few as possible."""
    if request.param == "many_groups":
        monkeypatch.setattr(conv_module, "_PATCH_BYTES", 1)
    results.clear_cache()


@pytest.mark.usefixtures("grouping")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2**-7)], ids=["f32", "bf16"]
)
@pytest.mark.parametrize(
    ("size", "frame"),
    [*((size, (5, 4)) for size in KERNELS), (KERNELS[0], (2, 3)), (KERNELS[2], (1, 1))],
)
def test_equals_xla_forward_and_both_gradients(size, frame, dtype, tolerance):
    ours, want = results(*arrays(3, size, dtype, frame))
    for a, b in zip(ours, want, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert_close(a, b, tolerance)


@pytest.mark.parametrize("form", ["_conv_rank_5", "_conv_rank_4"])
@pytest.mark.parametrize("size", KERNELS)
def test_forms_for_other_platforms_equal_the_reference(size, form):
    x, kernel, dy = arrays(3, size, jnp.float32)
    y, vjp = jax.vjp(getattr(conv_module, form), x, kernel)
    want, want_vjp = jax.vjp(reference, x, kernel)
    for a, b in zip((y, *vjp(dy)), (want, *want_vjp(dy)), strict=True):
        assert_close(a, b, 2e-6)


@pytest.mark.parametrize(
    ("frames", "size", "split", "forms"),
    [
        (16, (1, 3, 3), False, ("rank_4", "rank_5")),
        # Too few frames for XLA's batch: clips and frames are merged.
        (4, (1, 3, 3), False, ("rank_4", "rank_4")),
        (4, (3, 1, 1), False, ("rank_4", "rank_5")),
        # Frames on several chips cannot be merged with clips.
        (4, (1, 3, 3), True, ("rank_5", "rank_5")),
    ],
)
def test_which_form_gpus_and_tpus_take(frames, size, split, forms, monkeypatch):
    monkeypatch.setattr(conv_module, "is_split", lambda *_: split)
    x = jax.ShapeDtypeStruct((2, frames, 8, 8, 4), jnp.float32)
    kernel = jax.ShapeDtypeStruct((*size, 4, 4), jnp.float32)

    def axes(convolve, platform):
        # A new function each time, so that JAX traces it again.
        lowered = export.export(jax.jit(lambda *a: convolve(*a)), platforms=[platform])
        return re.findall(r"dim_numbers = (.*?), window", lowered(x, kernel).mlir_module())

    for platform, form in zip(("cuda", "tpu"), forms, strict=True):
        want = axes(getattr(conv_module, f"_conv_{form}"), platform)
        assert len(want) == 1
        assert axes(conv, platform) == want


def test_bfloat16_weight_gradient_sums_many_groups_in_float32(monkeypatch):
    """1,024 ones add up to 1,024; a bfloat16 sum over the groups would stop at 256."""
    monkeypatch.setattr(conv_module, "_PATCH_BYTES", 1)
    ones = jnp.ones((1024, 1, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.ones((3, 1, 1, 1, 1), jnp.bfloat16)
    _, dkernel = jit(lambda x, k, dy: jax.vjp(conv, x, k)[1](dy))(ones, kernel, ones)
    assert dkernel[1, 0, 0, 0, 0] == 1024
    assert dkernel[0, 0, 0, 0, 0] == 0


@pytest.mark.parametrize("stride", [2, 3])
def test_strided_temporal_conv_is_conv_then_slicing(stride):
    x, kernel, _ = arrays(3, (3, 1, 1), jnp.float32)

    def value_and_gradients(f):
        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(jnp.cos(y))

    got = jit(lambda: value_and_gradients(lambda *a: strided_temporal_conv(*a, stride)))()
    want = jit(lambda: value_and_gradients(lambda *a: reference(*a)[:, ::stride]))()
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, 2e-6)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("frame", [(6, 4), (5, 7)])
def test_strided_spatial_conv_is_conv_then_slicing(platform, frame):
    x, kernel, _ = arrays(2, (1, 3, 3), jnp.float32, frame)
    # TPUs convolve few frames as GPUs do.
    x = jnp.concatenate([x, x[:, ::-1]], axis=1)

    def value_and_gradients(f):
        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(jnp.cos(y))

    with assume_platform(platform):
        got = jit(lambda: value_and_gradients(lambda *a: strided_spatial_conv(*a, 2)))()
    want = jit(lambda: value_and_gradients(lambda *a: reference(*a)[:, :, ::2, ::2]))()
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, 2e-6)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(("taps", "times"), [(3, 2), (3, 3), (5, 2), (1, 2)])
def test_repeated_temporal_conv_is_conv_of_the_repeated_clip(platform, taps, times):
    x, kernel, _ = arrays(3, (taps, 1, 1), jnp.float32)

    def value_and_gradients(f):
        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(jnp.cos(y))

    with assume_platform(platform):
        got = jit(lambda: value_and_gradients(lambda *a: repeated_temporal_conv(*a, times)))()
    want = jit(lambda: value_and_gradients(lambda x, k: reference(jnp.repeat(x, times, 1), k)))()
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, 2e-6)


def test_spatial_kernels_mix_no_frames_and_temporal_kernels_no_pixels():
    x, _, _ = arrays(1, (1, 1, 1), jnp.float32)
    changed = x.at[0, 2, 1, 1].add(1.0)
    for size, where in [((1, 3, 3), np.s_[:, 2, 0:3, 0:3]), ((3, 1, 1), np.s_[:, 1:4, 1, 1])]:
        kernel = arrays(1, size, jnp.float32)[1]
        difference = np.array(jnp.abs(conv(changed, kernel) - conv(x, kernel)))
        assert np.all(difference[where] > 0)
        difference[where] = 0
        assert np.all(difference == 0)
