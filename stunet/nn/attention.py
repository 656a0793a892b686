"""Attention of a clip: over each frame's pixels and the text, and over the frames of each pixel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from stunet.nn.layers import Dense, GroupNorm
from stunet.nn.platforms import platform_dependent
from stunet.nn.sharding import constrain, partition_spec


class TextAttention(nn.Module):
    """Residual attention of each frame's positions to themselves and to the text, as in DeepFloyd
    IF.

    The text's keys and values are added to the frame's own ("added key/value"), so one softmax
    weighs both. `mask` removes text tokens from the softmax. Without text it is plain
    self-attention; with `text_only`, attention to the text alone. `flash`: by `flash_attention`.
    """

    head_channels: int
    groups: int
    text_groups: int = 32
    flash: bool = False
    text_only: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        b, t, h, w, c = x.shape
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def heads(name, values):
            projected = Dense(c, name=name, **dtypes)(values)
            return projected.reshape(*values.shape[:-1], -1, self.head_channels)

        states = GroupNorm(self.groups, name="group_norm", **dtypes)(x).reshape(b, t, h * w, c)
        query, keys_values, allowed = heads("to_q", states), [], None
        if text is not None:
            text = GroupNorm(self.text_groups, batch_axes=1, name="norm_cross", **dtypes)(text)
            added = [jnp.expand_dims(heads(name, text), 1) for name in ("add_k_proj", "add_v_proj")]
            keys_values.append([jnp.broadcast_to(a, (b, t, *a.shape[2:])) for a in added])
            allowed = mask
        if not self.text_only:
            own = [heads(name, states) for name in ("to_k", "to_v")]
            # Every position attends to all: a frame split over chips is gathered here, once for
            # each, and not in pieces around the concatenation with the text.
            keys_values.append(
                [constrain(a, "batch", "frames", None, "features", None) for a in own]
            )
            if allowed is not None:
                allowed = jnp.concatenate([allowed, jnp.ones((b, h * w), bool)], axis=1)
        key, value = (jnp.concatenate(parts, axis=2) for parts in zip(*keys_values, strict=True))
        attend = flash_attention if self.flash else frame_attention
        y = attend(query, key, value, allowed).reshape(b, t, h, w, c)
        return x + Dense(c, name="to_out", **dtypes)(y)


def frame_attention(
    query: Float[Array, "b t l n d"],
    key: Float[Array, "b t s n d"],
    value: Float[Array, "b t s n d"],
    allowed: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t l n d"]:
    """Attention within each frame; `allowed` is False on the keys that are left out."""
    if allowed is not None:
        allowed = allowed[:, None, None, :]
    # Frames are mapped, not merged into the batch, so that a clip sharded over frames stays so.
    attend = jax.vmap(jax.nn.dot_product_attention, in_axes=(1, 1, 1, None, None), out_axes=1)
    return attend(query, key, value, None, allowed)


def flash_attention(
    query: Float[Array, "b t l n d"],
    key: Float[Array, "b t s n d"],
    value: Float[Array, "b t s n d"],
    allowed: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t l n d"]:
    """`frame_attention`, on TPUs by the Pallas kernel that JAX ships, which never stores the scores
    (Dao et al., arXiv 2205.14135). On other platforms, and where a chip's queries, the keys or a
    head's features are no multiple of the kernel's 128, it is `frame_attention`."""
    if allowed is None:
        allowed = jnp.ones((key.shape[0], key.shape[2]), bool)

    def on_a_chip(*arrays):
        query, key = arrays[:2]
        if any(n % _FLASH_TILE for n in (query.shape[2], key.shape[2], key.shape[4])):
            return frame_attention(*arrays)
        return platform_dependent(*arrays, tpu=_flash_attention, default=frame_attention)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
        return on_a_chip(query, key, value, allowed)
    # The partitioner cannot look into a kernel: each chip runs its own. A frame's positions are
    # split by rows.
    lies = lambda names, x: partition_spec(names, x.shape, mesh.shape)  # noqa: E731
    queries = lies(("batch", "frames", "rows", "features", None), query)
    keys = lies(("batch", "frames", None, "features", None), key)
    specs = (queries, keys, keys, lies(("batch", None), allowed))
    # The kernel does not say how its outputs vary over the mesh, which the check asks for.
    return jax.shard_map(on_a_chip, in_specs=specs, out_specs=queries, check_vma=False)(
        query, key, value, allowed
    )


_FLASH_TILE = 128
_FLASH_BLOCKS = (512, 384, 256, 128)


def _flash_attention(query, key, value, allowed):
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    b, t, queries, _, d = query.shape
    keys = key.shape[2]
    # [b, t, l, n, d] -> [b t, n, l, d].
    query, key, value = (
        x.swapaxes(2, 3).reshape(b * t, x.shape[3], x.shape[2], d) for x in (query, key, value)
    )
    # Positions attend within their segment: keys that are left out are a segment of their own.
    segments = pallas.SegmentIds(
        jnp.ones((b * t, queries), jnp.int32), jnp.repeat(allowed.astype(jnp.int32), t, axis=0)
    )
    q, k = (next(n for n in _FLASH_BLOCKS if length % n == 0) for length in (queries, keys))
    blocks = pallas.BlockSizes(
        block_b=1,
        **dict.fromkeys(("block_q", "block_q_major_dkv", "block_q_dkv", "block_q_dq"), q),
        **dict.fromkeys(("block_k_major", "block_k", "block_k_major_dkv", "block_k_dkv"), k),
        **dict.fromkeys(("block_k_major_dq", "block_k_dq"), k),
    )
    y = pallas.flash_attention(
        query, key, value, segment_ids=segments, sm_scale=d**-0.5, block_sizes=blocks
    )
    return y.reshape(b, t, *y.shape[1:]).swapaxes(2, 3)


class TemporalAttention(nn.Module):
    """Lumiere's attention-based inflation block: residual attention over time at each position
    (arXiv 2401.12945).

    The output projection starts at zero, so the block starts as a no-op. Frames know their order by
    rotary position embeddings, which are relative and so extend to clips longer than those trained
    on (a choice: the paper does not say).
    """

    head_channels: int
    groups: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        c = x.shape[-1]
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def heads(name):
            projected = Dense(c, name=name, **dtypes)(states)
            return projected.reshape(*x.shape[:-1], -1, self.head_channels)

        states = GroupNorm(self.groups, name="group_norm", **dtypes)(x)
        query, key, value = rotate(heads("to_q")), rotate(heads("to_k")), heads("to_v")
        attend = jax.vmap(jax.vmap(jax.nn.dot_product_attention, 2, 2), 3, 3)
        y = attend(query, key, value).reshape(x.shape)
        return x + Dense(c, kernel_init=nn.initializers.zeros, name="to_out", **dtypes)(y)


def rotate(x: Float[Array, "b t h w n d"]) -> Float[Array, "b t h w n d"]:
    """Rotary position embedding along t (Su et al., arXiv 2104.09864): pairs (i, i + d/2) turn by t
    / 100^(2i/d).

    The base is 100 rather than the 10000 of text: clips have tens of frames, and a slower rotation
    would tell nothing apart.
    """
    t, half = x.shape[1], x.shape[-1] // 2
    frequency = 100.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(t, dtype=jnp.float32)[:, None, None, None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
