"""What the Space-Time U-Net is at initialisation, exactly, and what holds after training too."""

import functools
import re

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stunet.nn.conv as conv_module
from stunet.nn.attention import TemporalAttention, TextAttention, rotate
from stunet.nn.blocks import TemporalDownsample, TemporalUpsample, fold_patches, unfold_patches
from stunet.nn.layers import GroupNorm
from stunet.nn.stunet import REMAT_POLICIES, STUNet, stack_layers

FRAMES, TEXT = 16, (5, 12)

# These tests take as long as XLA compiles; what it compiles runs in no time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled_convolutions():
    """XLA's own, which compile three times as fast; `test_conv` holds that the CPU's are equal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_module, "_by_platform", lambda cpu, default, *args: default(*args))
        yield


def network(**changes) -> STUNet:
    """A tiny network of two levels."""
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
    return jit(net.apply)


def shapes(module, *args):
    return nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *args))


def randomised(params, seed=0):
    """Values unlike those at initialisation: no projection, bias or scale is left at 0 or 1.

    NumPy's, here and below: compiling JAX's generator would take longer than the tests.
    """
    rng = np.random.default_rng(seed)
    flat = flax.traverse_util.flatten_dict(params)
    for path, leaf in flat.items():
        values = rng.normal(size=leaf.shape)
        spread = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        flat[path] = jnp.asarray((path[-1] == "scale") + spread * values, leaf.dtype)
    return flax.traverse_util.unflatten_dict(flat)


def normal(shape) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def inputs(batch=2, frames=4, pixels=4, channels=3, seed=0):
    """Clip, noise time, text states and a text mask."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, frames, pixels, pixels, channels))
    text = rng.normal(size=(batch, *TEXT))
    mask = np.arange(TEXT[0]) < np.arange(2, 2 + batch)[:, None]
    time = np.linspace(0.3, 0.7, batch)
    return *(jnp.asarray(a, jnp.float32) for a in (x, time, text)), jnp.asarray(mask)


def assert_close(got, want, tolerance):
    """Within `tolerance` of the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(want).max() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def held(levels: int, factors) -> np.ndarray:
    """For each level, the frame that stands for frame k: `f * (k // f)`, f accumulated so far."""
    accumulated = np.cumprod(factors or (1,) * levels)[:, None]
    return accumulated * (np.arange(FRAMES) // accumulated)


@functools.cache
def spatial_network():
    """Random parameters of the spatial network, and it with each level given the frames it holds.

    The latter is the claim of stunet.py's docstring, said with no temporal layer: all frames of a
    level are computed, and each is then replaced by the one that stands for it.
    """
    net = deep_network(None)
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


def deep_network(factors) -> STUNet:
    return network(
        channels=(8, 8, 8),
        attention_levels=(False, False, True),
        temporal_factors=factors,
        text_pooling_heads=0,
        groups=1,  # single pixels are normalised: with few channels a group, rounding would show
    )


@pytest.fixture(scope="module", params=[(1, 1, 1), (1, 2, 1), (1, 2, 2), (1, 2, 4)], ids=str)
def at_init(request):
    """(factors, clips, what the temporal network makes of them at initialisation, text inputs).

    Clips: any; static; constant over N frames; and the first, FRAMES times, with another frame j.
    """
    factors = request.param
    spatial, _ = spatial_network()
    x, time, text, mask = inputs(1, FRAMES)
    blocks = np.prod(factors) * (np.arange(FRAMES) // np.prod(factors))
    changed = x + 3 * jnp.eye(FRAMES)[:, :, None, None, None] * inputs(1, FRAMES, seed=1)[0]
    clips = jnp.concatenate([x, x[:, [5] * FRAMES], x[:, blocks], changed])
    text, mask, time = (jnp.repeat(a, len(clips), axis=0) for a in (text, mask, time))
    net = deep_network(factors)

    @jit
    def run(spatial, *args):
        params = nn.unbox(net.init(jax.random.key(0), *args))
        flat = flax.traverse_util.flatten_dict(params)
        common = flax.traverse_util.flatten_dict(spatial)
        assert common.keys() < flat.keys()
        params = flax.traverse_util.unflatten_dict(flat | common)
        return net.apply(params, *args)

    rest = (time, text, mask)
    return factors, clips, run(spatial, clips, *rest), rest


def spatial_outputs(at_init, factors):
    """What the spatial network makes of the first three clips, with levels held for `factors`."""
    _, clips, _, rest = at_init
    params, apply = spatial_network()
    return apply(params, held(3, factors), clips[:3], *(a[:3] for a in rest))


def test_at_init_output_is_the_spatial_networks_for_the_frames_each_level_holds(at_init):
    factors, _, outputs, _ = at_init
    assert_close(outputs[:3], spatial_outputs(at_init, factors), 1e-5)


def test_at_init_every_nth_frame_is_the_spatial_networks(at_init):
    factors, _, outputs, _ = at_init
    n = np.prod(factors)
    spatial = spatial_outputs(at_init, None)
    assert_close(outputs[0, ::n], spatial[0, ::n], 1e-5)
    if n > 1:  # and the others are not: resizing does something
        assert np.abs(outputs[0] - spatial[0]).max(axis=(1, 2, 3))[1] > 1e-2


@pytest.mark.parametrize(("clip", "name"), [(1, "static"), (2, "constant over N frames")])
def test_at_init_a_clip_that_is_constant_over_n_frames_gives_the_spatial_output(
    at_init, clip, name
):
    _, _, outputs, _ = at_init
    assert_close(outputs[clip], spatial_outputs(at_init, None)[clip], 1e-5)


def test_at_init_frame_k_depends_on_exactly_the_frames_that_levels_hold_for_it(at_init):
    factors, _, outputs, _ = at_init
    difference = np.abs(outputs[3:] - outputs[0]).max(axis=(2, 3, 4))  # [changed frame, frame]
    depends = np.zeros((FRAMES, FRAMES), bool)
    for frames in held(3, factors):
        depends[frames, np.arange(FRAMES)] = True
    assert np.all(difference[depends] > 1e-3)
    assert np.all(difference[~depends] < 1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_temporal_resizing_at_init_is_nearest_neighbour(factor):
    clip = normal((2, FRAMES, 2, 3, 5))
    constant = jnp.broadcast_to(clip[:, :1], clip.shape)
    down, up = TemporalDownsample(factor), TemporalUpsample(factor)

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


def test_shifting_time_by_n_frames_shifts_the_output_away_from_the_borders():
    """With trained convolutions; temporal attention sees the borders from anywhere."""
    n, frames = 4, 48
    # How far each temporal convolution sees: one frame, times the level's factor.
    reach = sum(
        [
            1 + 1,  # level 0 on the way down: inflation, down-sampling to level 1
            2 + 2,  # level 1 on the way down: inflation, down-sampling to level 2
            2 + 2 * 2,  # level 1 on the way up: up-sampling to it, two inflations
            1 + 2 * 1,  # level 0 on the way up
            n - 1,  # a frame is computed from those that stand for it
        ]
    )
    net = network(
        channels=(8, 8, 8),
        attention_levels=(False,) * 3,
        temporal_factors=(1, 2, 2),
        temporal_attention_blocks=0,
        text_features=0,
    )
    long, time, _, _ = inputs(1, frames + n)
    clips = jnp.concatenate([long[:, shift : shift + frames] for shift in (0, 1, n)])
    time = jnp.repeat(time, 3)
    params = randomised(shapes(net, clips, time))
    first, by_one, by_n = np.asarray(compiled(net)(params, clips, time))

    inside = slice(reach, frames - n - reach)
    assert frames - n - 2 * reach >= n
    assert_close(by_n[: frames - n][inside], first[n:][inside], 2e-5)
    # Zero padding shows at the borders, and a shift by less than N does not commute with resizing.
    assert np.abs(by_n[: frames - n] - first[n:])[0].max() > 1e-2
    assert np.abs(by_one[: frames - 1] - first[1:])[reach : frames - reach].max() > 1e-2


def test_temporal_attention_knows_distances_in_time_but_no_absolute_position():
    query, key, value = normal((3, 2, 6, 1, 1, 3, 8))

    @functools.partial(jit, static_argnums=0)
    def attend(shift, query, key):
        pad = [(0, 0), (shift, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
        q, k = (rotate(jnp.pad(a, pad))[:, shift:, 0, 0] for a in (query, key))
        logits = jnp.einsum("bqnd,bknd->bnqk", q, k)
        return logits, jax.nn.dot_product_attention(q, k, value[:, :, 0, 0])

    for shifted, own in zip(attend(23, query, key), attend(0, query, key), strict=True):
        assert_close(shifted, own, 1e-5)

    # Equal content at all times: logits tell distances, and before from after.
    query, key = (jnp.broadcast_to(a[:, :1], a.shape) for a in (query, key))
    logits, _ = map(np.asarray, attend(0, query, key))
    for distance in range(-5, 6):
        diagonal = np.diagonal(logits, distance, axis1=2, axis2=3)
        assert np.ptp(diagonal, axis=-1).max() < 1e-5
    assert np.ptp(logits[:, :, 2], axis=-1).min() > 0.1
    assert np.abs(logits - logits.swapaxes(2, 3)).max() > 0.1


def test_temporal_attention_is_not_equivariant_to_permuting_frames():
    block = TemporalAttention(head_channels=4, groups=2)
    x = normal((2, 6, 2, 2, 8))
    params = randomised(shapes(block, x))
    apply = jit(block.apply)
    for order in ([0, 2, 1, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        order = np.array(order)
        assert np.abs(apply(params, x[:, order]) - apply(params, x)[:, order]).max() > 1e-2


def test_every_parameter_learns_from_the_second_step_on():
    """One step from initialisation every weight has a gradient, but one that cannot have any.

    At initialisation itself what lies behind a zero projection has none. A bias that all keys
    share, as in text pooling, moves all logits alike.
    """
    net = network()
    args = inputs(frames=8)
    target = normal(args[0].shape)

    @jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean((net.apply(p, *args) - target) ** 2))(params)

    # A spatial network that has learnt something, and temporal projections at their initial zero.
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
    """(net, params, loss, gradients) of a network of one level, with neither remat nor scan."""
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


def test_scanned_layers_are_the_unrolled_ones():
    """With remat, too, as a deep network would use them."""
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
    # bfloat16 rounds by 2^-9, here through some forty layers one after another.
    assert_close(got, want, 0.06)
    assert np.abs(got - want).mean() < 0.01 * np.abs(want).max()


def test_zero_widening_to_condition_channels_changes_nothing():
    """[J, C, M] of Lumiere: 7 channels into the first convolution, the last 4 weighed by zero."""
    net, args = network(), inputs()
    params = randomised(shapes(net, *args))
    first = params["params"]["conv_in"]
    wide = jnp.pad(first["kernel"], [(0, 0)] * 3 + [(0, 4), (0, 0)])
    widened = {"params": params["params"] | {"conv_in": first | {"kernel": wide}}}
    x, *rest = args
    conditioned = jnp.concatenate([x, inputs(channels=4, seed=3)[0]], axis=-1)
    assert shapes(net, conditioned, *rest)["params"]["conv_in"]["kernel"].shape == wide.shape
    got = compiled(net)(widened, conditioned, *rest)
    assert_close(got, compiled(net)(params, *args), 1e-6)


def test_text_its_mask_and_the_time_all_matter():
    net = network()
    x, time, text, mask = inputs()
    params = randomised(shapes(net, x, time, text, mask))
    apply = functools.partial(compiled(net), params, x)
    want = apply(time, text, mask)
    for other in (
        apply(time, -text, mask),
        apply(time, text, ~mask),
        apply(time + 0.1, text, mask),
    ):
        assert np.all(np.abs(other - want).max(axis=(1, 2, 3, 4)) > 1e-3)
    # Padding counts in the pooled text, as it did when the open weights were trained.
    padded = jnp.where(mask[..., None], text, 0.0)
    assert np.abs(apply(time, padded, mask) - want).max() > 1e-3


def test_attention_does_not_see_masked_tokens():
    """They matter only through the statistics of `norm_cross`, over tokens and groups of channels.

    So they are changed here by permuting channels within groups, which keeps the statistics.
    """
    block = TextAttention(head_channels=4, groups=2, text_groups=4)
    x, _, text, mask = inputs(channels=8)
    params = randomised(shapes(block, x, text, mask))
    apply = functools.partial(jit(block.apply), params, x)
    others = text.reshape(*text.shape[:2], 4, -1)[..., ::-1].reshape(text.shape)
    changed = jnp.where(mask[..., None], text, others)
    want = apply(text, mask)
    assert_close(apply(changed, mask), want, 1e-6)
    assert np.abs(apply(changed, None) - apply(text, None)).max() > 1e-2  # unless unmasked
    assert_close(apply(text, jnp.ones_like(mask)), apply(text, None), 1e-6)
    # With all tokens masked it is self-attention, as if there were no text.
    assert_close(apply(text, jnp.zeros_like(mask)), apply(None, None), 1e-6)


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-5), (10.0, 1e-4), (100.0, 1e-2)])
def test_group_norm_is_the_textbooks_frame_by_frame(mean, tolerance):
    """Its one-pass variance loses digits as (mean / deviation)^2: at 100, two remain for sure."""
    rng = np.random.default_rng(0)
    x = mean + rng.normal(size=(2, 3, 4, 5, 12))
    norm = GroupNorm(groups=4)
    params = randomised(shapes(norm, jnp.asarray(x, jnp.float32)))
    shift = rng.normal(size=(2, 24)).astype(np.float32)
    apply = jit(norm.apply)

    x = x.astype(np.float32)
    grouped = x.astype(np.float64).reshape(2, 3, 4, 5, 4, 3)  # each frame and group of 3 alone
    axes = (2, 3, 5)
    grouped = grouped - grouped.mean(axes, keepdims=True)
    grouped /= np.sqrt(np.square(grouped).mean(axes, keepdims=True) + 1e-5)
    scale, bias = (np.asarray(params["params"][k], np.float64) for k in ("scale", "bias"))
    want = grouped.reshape(x.shape) * scale + bias
    assert_close(apply(params, x), want, tolerance)
    factor, offset = np.split(shift[:, None, None, None], 2, axis=-1)
    assert_close(apply(params, x, shift), want * (1 + factor) + offset, tolerance)


def test_folding_patches_moves_each_square_into_channels_and_back():
    x = normal((2, 3, 4, 6, 5))
    folded = fold_patches(x, 2)
    assert folded.shape == (2, 3, 2, 3, 20)
    for dy, dx in np.ndindex(2, 2):
        channels = slice(5 * (2 * dy + dx), 5 * (2 * dy + dx + 1))
        np.testing.assert_array_equal(folded[..., channels], x[:, :, dy::2, dx::2])
    np.testing.assert_array_equal(unfold_patches(folded, 2), x)
