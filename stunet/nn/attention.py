"""Attention in a clip: within each frame and to the text, and over time at each position."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from stunet.nn.layers import Dense, GroupNorm
from stunet.nn.platforms import platform_dependent
from stunet.nn.sharding import constrain, partition_spec


class TextAttention(nn.Module):
    """Residual attention of the positions in each frame to one another and to the text.

    The keys and values of the text are concatenated with those of the frame, so one softmax weighs
    both. DeepFloyd IF does the same ("added key/value"). Without text this is plain self-attention.

    Attributes:
        head_channels: features of one attention head; must divide the number of channels.
        groups: number of groups in the group norm of the frame.
        text_groups: number of groups in the group norm of the text states.
        flash: compute attention with `flash_attention`, unless `text_only`, whose keys are few.
        text_only: attend to the text alone, not to the frame's own positions.
        epsilon: added to the variance of the frame.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    head_channels: int
    groups: int
    text_groups: int = 32
    flash: bool = False
    text_only: bool = False
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"] | None = None,
        mask: Bool[Array, "b l"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Adds the attention's output to `x`.

        Args:
            x: activations.
            text: token states.
            mask: False on tokens that take no part in the softmax; None keeps all tokens.
        """
        b, t, h, w, c = x.shape
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)

        def heads(name, values):
            projected = Dense(features=c, name=name, **dtypes)(values)
            return projected.reshape(*values.shape[:-1], -1, self.head_channels)

        norm = GroupNorm(groups=self.groups, epsilon=self.epsilon, name="group_norm", **dtypes)
        states = norm(x).reshape(b, t, h * w, c)
        query, keys_values = heads("to_q", states), []
        flash = self.flash and not self.text_only
        if not self.text_only:
            own = [heads(name, states) for name in ("to_k", "to_v")]
            # Every position attends to all others. So a frame that is split over chips is gathered
            # here, once for keys and once for values, instead of in pieces around the concatenation
            # with the text.
            keys_values.append(
                [constrain(a, "batch", "frames", None, "features", None) for a in own]
            )
        if text is None:
            mask = None
        else:
            # `batch_axes=1`: the statistics go over all tokens of a prompt, padding included.
            norm = GroupNorm(groups=self.text_groups, batch_axes=1, name="norm_cross", **dtypes)
            text = norm(text)
            if flash and mask is not None:
                # `flash_attention` can leave out the last keys only. The result does not depend on
                # the order of the tokens.
                order = jnp.argsort(~mask, axis=1)[..., None]
                text = jnp.take_along_axis(text, order, axis=1, mode="promise_in_bounds")
            added = [jnp.expand_dims(heads(name, text), 1) for name in ("add_k_proj", "add_v_proj")]
            keys_values.append([jnp.broadcast_to(a, (b, t, *a.shape[2:])) for a in added])
        key, value = (jnp.concatenate(parts, axis=2) for parts in zip(*keys_values, strict=True))
        if flash:
            lengths = None if mask is None else h * w + mask.sum(axis=1, dtype=jnp.int32)
            y = flash_attention(query, key, value, lengths)
        else:
            if mask is not None and not self.text_only:
                mask = jnp.concatenate([jnp.ones((b, h * w), bool), mask], axis=1)
            y = frame_attention(query, key, value, mask)
        y = y.reshape(b, t, h, w, c)
        return x + Dense(features=c, name="to_out", **dtypes)(y)


def frame_attention(
    query: Float[Array, "b t l n d"],
    key: Float[Array, "b t s n d"],
    value: Float[Array, "b t s n d"],
    allowed: Bool[Array, "b s"] | None = None,
) -> Float[Array, "b t l n d"]:
    """Computes scaled dot-product attention within each frame.

    Args:
        query: l queries of n heads with d features.
        key: s keys.
        value: s values.
        allowed: False on keys that are left out of the softmax; None keeps all keys.
    """
    if allowed is not None:
        allowed = allowed[:, None, None, :]
    # `vmap` over frames instead of merging them with clips, so that a clip that is sharded over
    # its frames stays sharded.
    attend = jax.vmap(jax.nn.dot_product_attention, in_axes=(1, 1, 1, None, None), out_axes=1)
    return attend(query, key, value, None, allowed)


def flash_attention(
    query: Float[Array, "b t l n d"],
    key: Float[Array, "b t s n d"],
    value: Float[Array, "b t s n d"],
    lengths: Int[Array, "b"] | None = None,
    widen: bool = False,
) -> Float[Array, "b t l n d"]:
    """Computes attention within each frame, with a fused kernel that never stores the scores.

    The algorithm is that of Dao et al. (arXiv 2205.14135). Each platform has its own kernel:

      - TPUs use the Pallas kernel that JAX ships. It works in tiles of 128, so three numbers must
        be multiples of 128: the queries on a chip, the keys on a chip, and the features of a head.
        With `widen`, heads of other widths are filled up with zeros.
      - NVIDIA GPUs, of the Ampere generation or newer, use cuDNN's kernel. The arrays must be
        bfloat16 or float16, the features of a head a multiple of 8 and at most 128 (256 on Hopper
        and newer), and the queries and the keys on a chip even in number.

    In all other cases, `frame_attention` runs.

    Args:
        query: l queries of n heads with d features.
        key: s keys.
        value: s values.
        lengths: number of keys that take part in the softmax, at least 1. They are the first keys
            of each frame. None keeps all keys.
        widen: let heads of any width take the kernel on TPUs. A TPU multiplies as many features at
            a time anyway, but the arrays take more memory.
    """
    if lengths is None:
        lengths = jnp.full(key.shape[:1], key.shape[2], jnp.int32)

    def attend_on_chip(*arrays):
        forms = {}
        if _suits_pallas(*arrays, widen=widen):
            forms["tpu"] = _pallas_attention
        if _suits_cudnn(*arrays):
            forms["cuda"] = _cudnn_attention
        return platform_dependent(*arrays, default=_plain_attention, **forms)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
        return attend_on_chip(query, key, value, lengths)

    def spec(x, *names):
        return partition_spec(names, x.shape, mesh.shape)

    # XLA's partitioner cannot split a kernel, so each chip runs its own on its share. Splitting the
    # rows of a frame splits its queries, since positions are in row-major order.
    query_spec = spec(query, "batch", "frames", "rows", "features", None)
    key_spec = spec(key, "batch", "frames", None, "features", None)
    in_specs = (query_spec, key_spec, key_spec, spec(lengths, "batch"))
    # The check of `shard_map` needs to know how outputs vary over the mesh, which the kernel does
    # not declare.
    attend = jax.shard_map(attend_on_chip, in_specs=in_specs, out_specs=query_spec, check_vma=False)
    return attend(query, key, value, lengths)


def _allowed(key, lengths):
    """Returns which keys take part, `[b, s]`."""
    return jnp.arange(key.shape[2]) < lengths[:, None]


def _plain_attention(query, key, value, lengths):
    """Computes `flash_attention` by its definition."""
    return frame_attention(query, key, value, _allowed(key, lengths))


_FLASH_TILE = 128
# Sizes of the kernel's blocks of queries and of keys; the largest that divides their number.
_FLASH_BLOCKS = (512, 384, 256, 128)


def _suits_pallas(query, key, value, lengths, widen=False):
    """Returns whether the Pallas kernel can compute `flash_attention` of these arrays."""
    features = () if widen else key.shape[4:]
    return not any(n % _FLASH_TILE for n in (query.shape[2], key.shape[2], *features))


def _pallas_attention(query, key, value, lengths):
    """Computes `flash_attention` with the Pallas kernel for TPUs."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    b, t, queries, _, d = query.shape
    keys, allowed = key.shape[2], _allowed(key, lengths)
    if missing := -d % _FLASH_TILE:
        # Zeros change no product of a query and a key.
        padding = [(0, 0)] * 4 + [(0, missing)]
        query, key, value = (jnp.pad(x, padding) for x in (query, key, value))
    # [b, t, l, n, d] -> [b t, n, l, d].
    query, key, value = (
        x.swapaxes(2, 3).reshape(b * t, x.shape[3], *x.shape[2::2]) for x in (query, key, value)
    )
    # Positions attend within their segment. All queries are in segment 1, and keys that are left
    # out are in segment 0.
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
    return y[..., :d].reshape(b, t, *y.shape[1:-1], d).swapaxes(2, 3)


def _suits_cudnn(query, key, value, lengths):
    """Returns whether cuDNN can compute `flash_attention` of these arrays.

    JAX knows the rules for the installed cuDNN and for the GPU, if there is one, and checks them
    when it traces. It has more rules for gradients. Without JAX's CUDA plugin it refuses too.
    """
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (query, key, value, lengths)]
    try:
        jax.eval_shape(lambda q, k, v, n: jax.vjp(_cudnn_attention, q, k, v, n)[0], *arrays)
    except RuntimeError:  # `NotImplementedError`, which JAX raises for most rules, is one.
        return False
    return True


def _cudnn_attention(query, key, value, lengths):
    """Computes `flash_attention` with cuDNN's kernel for NVIDIA GPUs."""
    # Lengths instead of a mask: the mask would have an entry for each pair of a query and a key,
    # and with one, gradients have been NaN (github.com/pytorch/pytorch/issues/196678).
    # cuDNN computes a batch of clips' frames: [b, t, l, n, d] -> [b t, l, n, d].
    merged = [x.reshape(-1, *x.shape[2:]) for x in (query, key, value)]
    y = jax.nn.dot_product_attention(
        *merged,
        key_value_seq_lengths=jnp.repeat(lengths, query.shape[1]),
        implementation="cudnn",
    )
    return y.reshape(query.shape)


class TemporalAttention(nn.Module):
    """Lumiere's attention-based inflation block: residual attention over time at each position.

    The output projection starts at zero, so the block starts as a no-op (arXiv 2401.12945, section
    3.1). Rotary position embeddings encode the order of the frames. The embeddings are relative, so
    they extend to clips longer than those in training. The paper does not name its position
    embedding, so this one is our choice.

    Attributes:
        head_channels: features of one attention head; must divide the number of channels.
        groups: number of groups in the group norm.
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
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
            projected = Dense(features=c, name=name, **dtypes)(states)
            return projected.reshape(*x.shape[:-1], -1, self.head_channels)

        states = GroupNorm(groups=self.groups, name="group_norm", **dtypes)(x)
        # No fused kernel: at the coarsest level a clip has ten frames or so. Their scores are fewer
        # than the features of the queries, and would fill a tenth of a kernel's tile.
        query, key, value = rotate(heads("to_q")), rotate(heads("to_k")), heads("to_v")
        # `vmap` over columns, then over rows.
        attend = jax.vmap(jax.vmap(jax.nn.dot_product_attention, 2, 2), 3, 3)
        y = attend(query, key, value).reshape(x.shape)
        zeros = nn.initializers.zeros
        return x + Dense(features=c, kernel_init=zeros, name="to_out", **dtypes)(y)


def rotate(x: Float[Array, "b t h w n d"]) -> Float[Array, "b t h w n d"]:
    """Applies the rotary position embedding along time (Su et al., arXiv 2104.09864).

    In frame t the pair of features (i, i + d/2) turns by the angle t / 100^(2i/d).

    The base is 100 instead of the 10000 that is usual for text. Clips have tens of frames, and a
    slower rotation would hardly tell them apart.
    """
    t, half = x.shape[1], x.shape[-1] // 2
    frequency = 100.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(t, dtype=jnp.float32)[:, None, None, None, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
