"""With any weights, the network knows distances in time, but no absolute positions."""

import functools

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

from stunet.nn.attention import TemporalAttention, rotate

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")


def test_shifting_time_by_n_frames_shifts_the_output_away_from_the_borders():
    """Holds for any convolutions. Temporal attention would see the borders from anywhere."""
    n, frames = 4, 48
    # Each temporal convolution sees one frame further, times the level's factor.
    reach = sum(
        [
            1 + 1,  # level 0 on the way down: inflation, down-sampling to level 1
            2 + 2,  # level 1 on the way down: inflation, down-sampling to level 2
            2 + 2 * 2,  # level 1 on the way up: up-sampling to it, two inflations
            1 + 2 * 1,  # level 0 on the way up
            n - 1,  # levels see an earlier frame in place of each frame
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

    # With equal content in all frames, logits tell distances, and before from after.
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
