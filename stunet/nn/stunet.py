"""The Space-Time U-Net (Lumiere, arXiv 2401.12945): a text-to-image U-Net inflated to whole clips.

The spatial network is Imagen's U-Net as published in DeepFloyd IF (diffusers'
`UNet2DConditionModel` of that family), applied to each frame by itself. The temporal network is
interleaved with it: after each layer an inflation block, after each spatial resize a temporal one.
All temporal parts start as no-ops or as nearest-neighbour resizing.

With total temporal factor N (the product of `temporal_factors`), at initialisation the output at
frame k of clip x is what the spatial network makes of the frames {f * (k // f)}: f runs over the
factors accumulated down to each level, each level seeing its own nearest earlier frame, through the
skip connections too. Hence
  - at every k divisible by N, all of these are frame k: the output is exactly the spatial
    network's for frame k;
  - a clip constant over blocks of N frames, a static clip above all, gives the spatial network's
    output in every frame.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from stunet.nn.attention import TemporalAttention, TextAttention
from stunet.nn.blocks import (
    SPATIAL,
    ConvInflation,
    ResnetBlock,
    TemporalDownsample,
    TemporalUpsample,
    fold_patches,
    unfold_patches,
)
from stunet.nn.embeddings import TextPooling, TimeEmbedding
from stunet.nn.layers import (
    ACTIVATIONS,
    STATISTICS,
    Conv,
    Dense,
    GroupNorm,
    identity_temporal_kernel,
    shard_clip,
)


def _with_statistics(policy: Callable) -> Callable:
    """Stores the statistics of group norms too, where the values they come from are stored."""
    return jax.checkpoint_policies.save_from_both_policies(
        policy, jax.checkpoint_policies.save_only_these_names(STATISTICS)
    )


def _save_projections(primitive, *_, **params) -> bool:
    """Convolutions, and products with a weight: those without batch dimensions."""
    if primitive is jax.lax.dot_general_p:
        _, (batch, _) = params["dimension_numbers"]
        return not batch
    return primitive is jax.lax.conv_general_dilated_p


# What the backward pass finds stored beside the input of each block; the rest it computes anew.
REMAT_POLICIES: dict[str, Callable] = {
    # Nothing.
    "full": jax.checkpoint_policies.nothing_saveable,
    # All that a weight was multiplied with; not the scores of attention.
    "projections": _with_statistics(_save_projections),
    # Every product.
    "dots": _with_statistics(jax.checkpoint_policies.dots_saveable),
}

TEMPORAL_RESIZE_INITS = {
    "nearest": identity_temporal_kernel,
    "he": nn.initializers.he_normal(in_axis=(0, 1, 2, 3), out_axis=4),
}


class Layer(nn.Module):
    """One layer of the U-Net: residual block, text attention (`attend`), inflation (`temporal`).

    `temporal` is "conv" (all levels but the coarsest), "attention" (the coarsest) or "none" (a
    spatial network). `scanned` says that `nn.scan` repeats it.
    """

    features: int
    temporal: str
    attend: bool
    groups: int
    text_groups: int
    head_channels: int
    flash_attention: bool
    text_only_attention: bool
    temporal_attention_blocks: int
    activation: str
    residual_divisor: float
    remat: str
    scanned: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x, skip, condition, text, mask):
        """`(x, skip or None, ...) -> (y, y)`: the second for `nn.scan`, which stacks it."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)
        resnet = self._remat(ResnetBlock)
        x = resnet(
            self.features,
            self.groups,
            self.activation,
            residual_divisor=self.residual_divisor,
            name="resnet",
            **dtypes,
        )(x, condition)
        if self.attend:
            attention = self._remat(TextAttention)
            x = attention(
                self.head_channels,
                self.groups,
                self.text_groups,
                self.flash_attention,
                self.text_only_attention,
                name="attention",
                **dtypes,
            )(x, text, mask)
        if self.temporal == "conv":
            inflation = self._remat(ConvInflation)
            x = inflation(self.groups, self.activation, name="temporal", **dtypes)(x)
        elif self.temporal == "attention":
            inflation = self._remat(TemporalAttention)
            for i in range(self.temporal_attention_blocks):
                x = inflation(self.head_channels, self.groups, name=f"temporal_{i}", **dtypes)(x)
        return x, x

    def _remat(self, block):
        # Within a scan nothing can be merged across passes, so nothing need keep it from it.
        return rematerialised(block, self.remat, prevent_cse=not self.scanned)


def rematerialised(block, policy: str, prevent_cse: bool = True):
    """A block (a module's class, or a function of a module) whose backward pass follows `policy`,
    a key of REMAT_POLICIES or "none"."""
    if policy == "none":
        return block
    return nn.remat(block, policy=REMAT_POLICIES[policy], prevent_cse=prevent_cse)


class STUNet(nn.Module):
    """Clip, noise time and text -> the network's prediction for every pixel of every frame.

    The input's channels are its own: Lumiere's conditioned models take seven, the noisy clip, the
    masked clip and the mask.

    Attributes:
        channels: features of each level, finest first.
        out_channels: of the prediction.
        patch_size: pixels on a side of the squares that are folded into channels before the first
            and unfolded after the last convolution. 1 is Imagen's and Lumiere's; more is cheaper
            ("simple diffusion", arXiv 2301.11093, section 3.3).
        layers_per_level: layers on the way down; one more on the way up. Of each level, or of all.
        attention_levels: for each level, whether its layers attend to pixels and text.
        temporal_factors: for each level, by how much time shrinks on entering it; the first is 1.
            None makes the spatial (text-to-image) network, which sees each frame by itself.
        temporal_attention_blocks: stacked after each layer of the coarsest level.
        temporal_resize_init: "nearest", or "he" for the ablation of the paper's Appendix B.
        groups: of the group norms.
        text_groups: of the group norm of text states in attention.
        head_channels: features of one attention head.
        flash_attention: attention to pixels and text by a fused kernel, on TPUs
            (`attention.flash_attention`).
        text_features: width of the text states inside attention; 0 for a network without text.
        text_pooling_heads: of the attention that pools text into the time embedding; 0: not pooled.
        text_only_attention: attention sees the text and not the frame's own pixels, which costs
            less at high resolutions (Imagen's Efficient U-Net, arXiv 2205.11487, appendix B.1).
        activation: a key of `layers.ACTIVATIONS`.
        residual_divisor: of what residual blocks give. The square root of 2 keeps the variance of
            two equal paths.
        time_features: of the embedding of the noise time; 0: 4 times the finest level's.
        time_scale: of the noise time, before its sinusoidal code.
        cosine_first: order of that code.
        frequency_shift: of that code.
        level_embedding: the network is also told, as an embedding like the noise time's, how noisy
            the low-resolution clip is that it is given.
        remat: a key of REMAT_POLICIES, or "none".
        scan_layers: run a level's equal layers as one scanned layer. Cuts the compile time of deep
            levels; parameters are stacked then (`stack_layers`).
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    channels: tuple[int, ...]
    out_channels: int = 3
    patch_size: int = 1
    layers_per_level: int | tuple[int, ...] = 3
    attention_levels: tuple[bool, ...] = (False, True, True, True)
    temporal_factors: tuple[int, ...] | None = (1, 2, 2, 2)
    temporal_attention_blocks: int = 2
    temporal_resize_init: str = "nearest"
    groups: int = 32
    text_groups: int = 32
    head_channels: int = 64
    flash_attention: bool = False
    text_features: int = 768
    text_pooling_heads: int = 64
    text_only_attention: bool = False
    activation: str = "gelu"
    residual_divisor: float = 1.0
    time_features: int = 0
    time_scale: float = 1000.0
    cosine_first: bool = True
    frequency_shift: float = 0.0
    level_embedding: bool = False
    remat: str = "none"
    scan_layers: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        time: Float[Array, "b"],
        text: Float[Array, "b l d"] | None = None,
        text_mask: Bool[Array, "b l"] | None = None,
        level: Float[Array, "b"] | None = None,
    ) -> Float[Array, "b t h w o"]:
        """Predicts over the whole clip.

        Args:
            x: noisy clip, -1..1 at no noise; h and w divisible by `patch_size` and by 2 for each
                level below the first, t by the product of `temporal_factors`.
            time: noise time in 0..1 (times `time_scale`, the network's own step count).
            text: token states; `text_mask` is False on those that attention shall not see.
            level: the noise time of a low-resolution clip among the channels of x, for a network
                with `level_embedding`.

        Returns:
            float32, of `out_channels`.
        """
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        levels = len(self.channels)
        factors = self.temporal_factors or (1,) * levels
        condition, text = self._condition(time, text, level)
        context = (condition, text, text_mask)

        def resnet(features, resample, name):
            block = rematerialised(ResnetBlock, self.remat)
            return block(
                features,
                self.groups,
                self.activation,
                resample,
                self.residual_divisor,
                name=name,
                **dtypes,
            )

        def resize_time(block, level, name):
            init = TEMPORAL_RESIZE_INITS[self.temporal_resize_init]
            block = rematerialised(block, self.remat)
            return block(factors[level], init, name=name, **dtypes)

        x = fold_patches(shard_clip(x), self.patch_size)
        x = Conv(self.channels[0], SPATIAL, name="conv_in", **dtypes)(x)
        skips = [x]
        for level in range(levels):
            x, outputs = self._level(f"down_{level}", level, x, None, context)
            skips += outputs
            if level + 1 < levels:
                x = resnet(self.channels[level], "down", f"down_{level}_resize")(x, condition)
                if factors[level + 1] > 1:
                    name = f"down_{level}_resize_time"
                    x = resize_time(TemporalDownsample, level + 1, name)(x)
                skips.append(x)

        x, _ = self._layer(levels - 1, name="mid_layer")(x, None, *context)
        x = resnet(self.channels[-1], "none", "mid_resnet")(x, condition)

        for level in reversed(range(levels)):
            level_skips = [skips.pop() for _ in range(self._layers(level) + 1)]
            x, _ = self._level(f"up_{level}", level, x, level_skips, context)
            if level > 0:
                x = resnet(self.channels[level], "up", f"up_{level}_resize")(x, condition)
                if factors[level] > 1:
                    x = resize_time(TemporalUpsample, level, f"up_{level}_resize_time")(x)

        return rematerialised(STUNet._predict, self.remat)(self, x)

    def _predict(self, x):
        """Features of the finest level -> pixels."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = ACTIVATIONS[self.activation](GroupNorm(self.groups, name="norm_out", **dtypes)(x))
        features = self.out_channels * self.patch_size**2
        x = Conv(features, SPATIAL, name="conv_out", **dtypes)(x)
        return unfold_patches(x, self.patch_size).astype(jnp.float32)

    def _condition(self, time, text, level):
        """The vector that modulates every residual block, and the text states for attention."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        features = self.time_features or 4 * self.channels[0]

        def embed(name, time):
            return TimeEmbedding(
                features,
                self.channels[0],
                self.activation,
                self.time_scale,
                self.cosine_first,
                self.frequency_shift,
                name=name,
                **dtypes,
            )(time)

        condition = embed("time_embedding", time)
        if self.level_embedding:
            condition = condition + embed("level_embedding", level)
        if not self.text_features:
            return condition, None
        if self.text_pooling_heads:
            pooling = TextPooling(features, self.text_pooling_heads, name="text_pooling", **dtypes)
            condition = condition + pooling(text)
        return condition, Dense(self.text_features, name="text_proj", **dtypes)(text)

    def _layers(self, level):
        """Of a level, on the way down."""
        layers = self.layers_per_level
        return layers if isinstance(layers, int) else layers[level]

    def _level(self, name, level, x, skips, context):
        """All layers of a level, one way. Returns the last output, and all."""
        count = self._layers(level) + (skips is not None)
        # The first layer's input, and the last one's on the way up, have other widths than the
        # rest.
        equal = range(1, count - (skips is not None))
        scanned = equal if self.scan_layers and len(equal) > 1 else ()
        outputs = []
        for i in range(count):
            if i in scanned and i > scanned[0]:
                continue
            if i in scanned:
                xs = None if skips is None else jnp.stack([skips[j] for j in scanned])
                stack = self._layer(level, name=f"{name}_layers", repeat=len(scanned))
                x, ys = stack(x, xs, *context)
                outputs += list(ys)
            else:
                skip = None if skips is None else skips[i]
                x, _ = self._layer(level, name=f"{name}_layer_{i}")(x, skip, *context)
                outputs.append(x)
        return x, outputs

    def _layer(self, level, name, repeat=None):
        coarsest = level == len(self.channels) - 1
        layer = Layer
        if repeat is not None:
            layer = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=repeat,
                metadata_params={nn.PARTITION_NAME: None},
            )
        temporal = "attention" if coarsest else "conv"
        return layer(
            features=self.channels[level],
            temporal=temporal if self.temporal_factors else "none",
            attend=self.attention_levels[level],
            groups=self.groups,
            text_groups=self.text_groups,
            head_channels=self.head_channels,
            flash_attention=self.flash_attention,
            text_only_attention=self.text_only_attention,
            temporal_attention_blocks=self.temporal_attention_blocks,
            activation=self.activation,
            residual_divisor=self.residual_divisor,
            remat=self.remat,
            scanned=repeat is not None,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )


def is_temporal(path: Sequence[str]) -> bool:
    """Whether the module or parameter at this path is one that inflation adds: an inflation block
    or a temporal resizing. All others are the text-to-image network's."""
    return any(name.startswith("temporal") or name.endswith("_resize_time") for name in path)


def stack_layers(params: dict) -> dict:
    """Parameters of a network without `scan_layers` -> those of the same network with it."""
    stacked = {k: v for k, v in params.items() if "_layer_" not in k}
    levels = {k.rsplit("_layer_", 1)[0] for k in params if "_layer_" in k}
    for level in levels:
        count = sum(k.startswith(f"{level}_layer_") for k in params)
        equal = range(1, count - level.startswith("up_"))
        for i in range(count):
            if i not in equal or len(equal) < 2:
                stacked[f"{level}_layer_{i}"] = params[f"{level}_layer_{i}"]
        if len(equal) > 1:
            layers = [params[f"{level}_layer_{i}"] for i in equal]
            stacked[f"{level}_layers"] = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    return stacked
