"""The Space-Time U-Net (Lumiere, arXiv 2401.12945): a text-to-image U-Net inflated to whole clips.

The spatial network is a U-Net of DeepFloyd IF's or of Stable Diffusion's family, as diffusers'
`UNet2DConditionModel` computes them. The family (`stunet.nn.families`) says of which blocks the
network consists. It is applied to each frame by itself. Temporal parts are interleaved with it:
each layer ends with an inflation block, and a temporal resize goes with each spatial resize.

    conv_in                                                        conv_out
       v                                                              ^
    down_0: layers  ------------------ skips ------------------>  up_0: layers
       v  down_0_resize, down_0_resize_time                           ^  up_1_resize_time
       v                                                              ^  up_1_resize
    down_1: layers  ------------------ skips ------------------>  up_1: layers
       v  ...                                                         ^  ...
       +----------------->  mid_layer, mid_resnet  -------------------+

Level 0 is the finest. A layer consists of a residual block, attention to pixels and text (at some
levels only), and an inflation block. The inflation block is a convolution, except at the coarsest
level, where it is attention over time.

All temporal parts start as no-ops or as nearest-neighbour resizing. So at initialisation the output
at frame k is the output of the spatial network, with one difference. Each level sees frame
f * (k // f) instead of frame k, also in its skip connections. Here f is the product of the temporal
factors down to that level. Let N be the product of all temporal factors. Then
  - at every k divisible by N, all levels see frame k, and the output is exactly the output of the
    spatial network for frame k;
  - for a clip that is constant over blocks of N frames, such as a static clip, the output is that
    of the spatial network in every frame.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from stunet.nn.blocks import SPATIAL, TemporalDownsample, TemporalUpsample
from stunet.nn.embeddings import TextAndSizeEmbedding, TextPooling, TimeEmbedding
from stunet.nn.families import FAMILIES, Blocks
from stunet.nn.layers import (
    ACTIVATIONS,
    Conv,
    Dense,
    GroupNorm,
    identity_temporal_kernel,
    shard_clip,
)
from stunet.nn.parameters import EMPTY_TEXT, equal_layers
from stunet.nn.remat import rematerialised
from stunet.nn.resizing import fold_patches, unfold_patches

TEMPORAL_RESIZE_INITS = {
    "nearest": identity_temporal_kernel,
    "he": nn.initializers.he_normal(in_axis=(0, 1, 2, 3), out_axis=4),
}


class Layer(nn.Module):
    """One layer of the U-Net: residual block, attention to pixels and text, inflation block.

    Attributes:
        blocks: makes the blocks.
        features: channels of the output.
        attention_depth: depth of the attention to pixels and text; 0 for a layer without it.
        temporal: kind of inflation block: "conv", "attention", or "none" in a spatial network.
    """

    blocks: Blocks
    features: int
    attention_depth: int
    temporal: str

    @nn.compact
    def __call__(self, x, skip, condition, text, text_mask):
        """Applies the layer.

        Args:
            x: activations `[b, t, h, w, c]`.
            skip: activations of the skip connection `[b, t, h, w, s]`, or None on the way down.
            condition: conditioning vectors `[b, d]`.
            text: token states `[b, l, e]`, or None.
            text_mask: True on tokens that attention sees `[b, l]`; None if it sees all tokens.

        Returns:
            The output twice: `nn.scan` hands the first on to the next layer and stacks the second.
        """
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)
        x = self.blocks.resnet(self.features, "resnet")(x, condition)
        if self.attention_depth:
            attention = self.blocks.attention(self.features, self.attention_depth, "attention")
            x = attention(x, text, text_mask)
        for inflation in self.blocks.inflation(self.features, self.temporal):
            x = inflation(x)
        return x, x


class STUNet(nn.Module):
    """Predicts noise, v or the clean clip from a noisy clip, its noise time and a text.

    The input may have more channels than the clip. Lumiere's conditioned models take seven: three
    of the noisy clip, three of the masked clip, and the mask.

    Attributes:
        channels: features of each level, finest first.
        family: a key of `families.FAMILIES`.
        out_channels: channels of the prediction.
        patch_size: squares of this many pixels on a side are folded into channels before the first
            convolution, and unfolded after the last one. 1 folds nothing, as in Imagen and Lumiere.
            Larger values are cheaper ("simple diffusion", arXiv 2301.11093, section 3.3).
        layers_per_level: number of layers of each level on the way down. A single number holds
            for all levels. On the way up each level has one layer more.
        attention_levels: for each level, True if its layers attend to pixels and text.
        transformer_layers: for each level, the number of transformer blocks in its attention, for
            families with transformers; () for one in each level. The middle layer has as many as
            the coarsest level.
        temporal_factors: for each level, the factor by which the number of frames shrinks on the
            way into the level; the first is 1. None makes the spatial (text-to-image) network,
            which sees each frame by itself.
        temporal_attention_blocks: number of temporal attention blocks that are stacked in each
            layer of the coarsest level.
        temporal_resize_init: initialisation of temporal resizing: "nearest", or "he" for the
            ablation of the paper's Appendix B.
        groups: number of groups in each group norm.
        text_groups: number of groups in the group norm of text states in attention.
        heads: number of attention heads in every level; 0 if `head_channels` determines it.
        head_channels: features of one attention head; not used if `heads` is not 0.
        flash_attention: use the fused kernels of `attention.flash_attention` for attention to
            pixels and text.
        text_features: width of the text states inside attention; 0 for a network without text. In
            families that do not project the text, it is the width of the text states.
        text_pooling_heads: heads of the attention that pools the text into the conditioning
            vector; 0 for no pooling.
        pooled_text_features: in families that embed sizes, features of the pooled text.
        size_features: in families that embed sizes, features of the sinusoidal code of each size.
        empty_text_tokens: number of token states that are parameters, and that the network sees
            where no token of a caption is seen; 0 for none. For families that do not project text.
        pixels: in families that embed sizes, rows (or columns) of the picture for each row (or
            column) of the clip: 8 for the latents of Stable Diffusion.
        text_only_attention: attention sees the text and not the frame's own pixels, which costs
            less at high resolutions (Imagen's Efficient U-Net, arXiv 2205.11487, appendix B.1).
        activation: a key of `layers.ACTIVATIONS`.
        residual_divisor: each residual block divides the sum of its two paths by this. The square
            root of 2 keeps the variance if both paths have the same variance.
        time_features: features of the conditioning vector; 0 means 4 times `channels[0]`.
        time_scale: the noise time is multiplied by this before it is encoded as sinusoids.
        cosine_first: in the sinusoidal code, the cosines come before the sines.
        frequency_shift: shift of the code's frequencies, see `embeddings.sinusoidal_embedding`.
        level_embedding: the network takes `low_res_time`, the noise time of a low-resolution clip
            among its input channels, and embeds it in the same way as `time`.
        remat: a key of `remat.REMAT_POLICIES`, or "none".
        scan_layers: run the layers of a level by `nn.scan` if their parameters have the same
            shapes. This cuts the compile time of deep levels. The parameters of these layers are
            stacked (`parameters.stack_layers`).
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
    """

    channels: tuple[int, ...]
    family: str = "if"
    out_channels: int = 3
    patch_size: int = 1
    layers_per_level: int | tuple[int, ...] = 3
    attention_levels: tuple[bool, ...] = (False, True, True, True)
    transformer_layers: tuple[int, ...] = ()
    temporal_factors: tuple[int, ...] | None = (1, 2, 2, 2)
    temporal_attention_blocks: int = 2
    temporal_resize_init: str = "nearest"
    groups: int = 32
    text_groups: int = 32
    heads: int = 0
    head_channels: int = 64
    flash_attention: bool = False
    text_features: int = 768
    text_pooling_heads: int = 64
    pooled_text_features: int = 0
    size_features: int = 256
    empty_text_tokens: int = 0
    pixels: int = 1
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

    @property
    def spatial(self) -> "STUNet":
        """The text-to-image network inside this one, which takes the same parameters.

        It leaves the parameters of temporal layers unused.
        """
        return self.clone(temporal_factors=None)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t h w c"],
        time: Float[Array, "b"],
        text: Float[Array, "b l d"] | None = None,
        text_mask: Bool[Array, "b l"] | None = None,
        low_res_time: Float[Array, "b"] | None = None,
    ) -> Float[Array, "b t h w o"]:
        """Predicts the noise, v or the clean clip, at every pixel of every frame.

        Args:
            x: noisy clip, with its conditioning in further channels. A clip without noise lies in
                -1..1. With n levels, h and w are divisible by `patch_size` * 2 ** (n - 1), and t is
                divisible by the product of `temporal_factors`.
            time: noise time in 0..1.
            text: token states; needed unless `text_features` is 0. In families that embed sizes,
                the first state is none of a token: its first `pooled_text_features` features are
                the pooled text.
            text_mask: False on tokens that attention does not see; None if it sees all tokens.
            low_res_time: noise time, in 0..1, of the low-resolution clip among the channels of x;
                needed with `level_embedding`.

        Returns:
            The prediction, with `out_channels` channels, in float32.
        """
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        levels = range(len(self.channels))
        factors = self.temporal_factors or (1,) * len(levels)
        condition, text, text_mask = self._embed(time, text, text_mask, low_res_time, x.shape[2:4])
        conditioning = (condition, text, text_mask)

        blocks = self._blocks()

        def resize_time(block, factor, name):
            init = TEMPORAL_RESIZE_INITS[self.temporal_resize_init]
            return blocks.make(block, factor=factor, kernel_init=init, name=name)

        x = fold_patches(shard_clip(x), self.patch_size)
        conv_in = Conv(features=self.channels[0], kernel_size=SPATIAL, name="conv_in", **dtypes)
        x = conv_in(x)

        skips = [x]
        for level in levels:
            x, outputs = self._apply_level(f"down_{level}", level, x, None, conditioning)
            skips += outputs
            if level < levels[-1]:
                x = blocks.resize(self.channels[level], "down", f"down_{level}_resize")(
                    x, condition
                )
                factor = factors[level + 1]
                if factor > 1:
                    name = f"down_{level}_resize_time"
                    x = resize_time(TemporalDownsample, factor, name)(x)
                skips.append(x)

        attends = self.attention_levels[-1] or FAMILIES[self.family].middle_attends
        middle = self._layer(levels[-1], name="mid_layer", attends=attends)
        x, _ = middle(x, None, *conditioning)
        x = blocks.resnet(self.channels[-1], "mid_resnet")(x, condition)

        for level in reversed(levels):
            level_skips = [skips.pop() for _ in range(self._layer_count(level) + 1)]
            x, _ = self._apply_level(f"up_{level}", level, x, level_skips, conditioning)
            if level > 0:
                x = blocks.resize(self.channels[level], "up", f"up_{level}_resize")(x, condition)
                if factors[level] > 1:
                    name = f"up_{level}_resize_time"
                    x = resize_time(TemporalUpsample, factors[level], name)(x)

        return rematerialised(STUNet._predict, self.remat)(self, x)

    def _embed(self, time, text, text_mask, low_res_time, size):
        """Returns the vector that modulates every residual block, and the text for attention.

        The text is its states and their mask. `size` holds the rows and columns of the clip.
        """
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        features = self.time_features or 4 * self.channels[0]
        shared = dict(
            features=features,
            activation=self.activation,
            cosine_first=self.cosine_first,
            frequency_shift=self.frequency_shift,
            **dtypes,
        )

        def embed_time(time, name):
            codes = dict(code_features=self.channels[0], time_scale=self.time_scale)
            return TimeEmbedding(**codes, **shared, name=name)(time)

        condition = embed_time(time, "time_embedding")
        if self.level_embedding:
            condition = condition + embed_time(low_res_time, "level_embedding")
        if not self.text_features:
            return condition, None, None
        if FAMILIES[self.family].embeds_sizes:
            pooled, text = text[:, 0, : self.pooled_text_features], text[:, 1:]
            text_mask = None if text_mask is None else text_mask[:, 1:]
            # The size of the original, where the crop begins, and the size after cropping. As in
            # the pipeline, a picture counts as one that was neither resized nor cropped.
            rows, columns = (self.pixels * extent for extent in size)
            sizes = jnp.array([rows, columns, 0, 0, rows, columns], jnp.float32)
            name = "text_and_size_embedding"
            embedding = TextAndSizeEmbedding(code_features=self.size_features, **shared, name=name)
            condition = condition + embedding(pooled, sizes)
        if self.empty_text_tokens:
            text, text_mask = self._fill_empty(text, text_mask)
        if not FAMILIES[self.family].projects_text:
            return condition, text, text_mask
        if self.text_pooling_heads:
            heads = self.text_pooling_heads
            pooling = TextPooling(features=features, heads=heads, name="text_pooling", **dtypes)
            condition = condition + pooling(text)
        text = Dense(features=self.text_features, name="text_proj", **dtypes)(text)
        return condition, text, text_mask

    def _fill_empty(self, text, text_mask):
        """Puts the states of an empty caption where the mask is False on all tokens."""
        empty = self.param(
            EMPTY_TEXT,
            nn.with_logical_partitioning(nn.initializers.zeros, (None, None)),
            (self.empty_text_tokens, text.shape[-1]),
            self.param_dtype,
        )
        if text_mask is None:
            return text, None
        is_empty = ~text_mask.any(axis=1, keepdims=True)
        text = jnp.where(is_empty[..., None], empty[: text.shape[1]].astype(text.dtype), text)
        return text, text_mask | is_empty

    def _predict(self, x):
        """Turns the features of the finest level into the prediction."""
        dtypes = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        norm = GroupNorm(groups=self.groups, name="norm_out", **dtypes)
        x = ACTIVATIONS[self.activation](norm(x))
        features = self.out_channels * self.patch_size**2
        x = Conv(features=features, kernel_size=SPATIAL, name="conv_out", **dtypes)(x)
        return unfold_patches(x, self.patch_size).astype(jnp.float32)

    def _layer_count(self, level):
        """Returns how many layers `level` has on the way down."""
        layers = self.layers_per_level
        return layers if isinstance(layers, int) else layers[level]

    def _apply_level(self, name, level, x, skips, conditioning):
        """Applies all layers of a level, on the way down or up.

        Args:
            name: prefix of the layers' names: `down_{level}` or `up_{level}`.
            level: index of the level.
            x: activations.
            skips: skip connection of each layer, or None on the way down.
            conditioning: the arguments of each layer after `x` and `skip`.

        Returns:
            The output of the last layer, and a list of the outputs of all layers.
        """
        has_skips = skips is not None
        count = self._layer_count(level) + has_skips
        scanned = equal_layers(count, has_skips) if self.scan_layers else ()
        outputs = []
        for i in range(count):
            if i not in scanned:
                skip = skips[i] if has_skips else None
                x, _ = self._layer(level, name=f"{name}_layer_{i}")(x, skip, *conditioning)
                outputs.append(x)
            elif i == scanned[0]:
                stack = self._layer(level, name=f"{name}_layers", repeat=len(scanned))
                stacked_skips = jnp.stack([skips[j] for j in scanned]) if has_skips else None
                x, ys = stack(x, stacked_skips, *conditioning)
                outputs += list(ys)
        return x, outputs

    def _layer(self, level, name, attends=None, repeat=None):
        """Makes one layer of `level`, or a scan over `repeat` such layers."""
        layer, blocks = Layer, self._blocks()
        if repeat is not None:
            blocks = dataclasses.replace(blocks, scanned=True)
            layer = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=repeat,
                metadata_params={nn.PARTITION_NAME: None},
            )
        temporal = "attention" if level == len(self.channels) - 1 else "conv"
        depth = self.transformer_layers[level] if self.transformer_layers else 1
        attends = self.attention_levels[level] if attends is None else attends
        return layer(
            blocks=blocks,
            features=self.channels[level],
            attention_depth=depth if attends else 0,
            temporal=temporal if self.temporal_factors else "none",
            name=name,
        )

    def _blocks(self):
        """Returns what makes the blocks of this network."""
        names = {field.name for field in dataclasses.fields(Blocks)} - {"scanned"}
        return Blocks(**{name: getattr(self, name) for name in names})
