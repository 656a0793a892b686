"""Keys of the network and of its adapters."""

import dataclasses

from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Model:
    """The network, a Space-Time U-Net (`stunet.nn.stunet`)."""

    family: str = field(
        "if",
        "Family of text-to-image U-Nets that the spatial layers belong to. 'if': DeepFloyd IF and "
        "Imagen, with attention to pixels and text at once. 'sd1': Stable Diffusion 1, with "
        "transformers, convolutions that resize, and a time embedding that is added. 'sd2': "
        "the same, with the projections of Stable Diffusion 2. 'sdxl': Stable Diffusion XL, which "
        "also takes the pooled text and the size of the picture, and needs the text encoder "
        "'sdxl:DIR'. 'sd1', 'sd2' and 'sdxl' attend to the text encoder's states as they are: set "
        "`model.text_features` to `text.dim`, and `model.text_pooling_heads` to 0.",
        choices=("if", "sd1", "sd2", "sdxl"),
    )
    channels: int = field(
        64,
        "Base width of the U-Net. Each level has this many features times its entry of "
        "`model.channel_multipliers`.",
        least=1,
    )
    channel_multipliers: tuple[float, ...] = field(
        (1, 2, 3, 4),
        "Width of each level of the U-Net as a multiple of `model.channels`, finest level first. "
        "There are as many levels as entries. Each level has half the height and width of the "
        "level before.",
    )
    layers_per_level: int = field(
        3,
        "Layers of each level on the way down; the way up has one more. A layer is a residual "
        "block, with attention and temporal blocks where the level has them.",
        least=1,
    )
    layers: tuple[int, ...] = field(
        (),
        "Layers of each level on the way down, finest level first, for networks whose levels "
        "differ. (): `model.layers_per_level` layers in every level.",
    )
    attention_levels: tuple[bool, ...] = field(
        (False, True, True, True),
        "Levels whose layers attend to the frame's pixels and to the text: one entry for each "
        "level, finest level first.",
    )
    transformer_layers: tuple[int, ...] = field(
        (),
        "Transformer blocks in each attention of a level, one entry for each level, finest level "
        "first, for the families 'sd1', 'sd2' and 'sdxl'. The layer in the middle of the U-Net has "
        "as many as the coarsest level. (): one in each level.",
    )
    temporal: bool = field(
        True,
        "True: a video network. False: the text-to-image network alone, which has no temporal "
        "layers and sees each frame by itself.",
    )
    temporal_factors: tuple[int, ...] = field(
        (1, 2, 2, 2),
        "Factor by which the number of frames shrinks on entering each level, finest level first. "
        "The first entry must be 1. `data.frames` must be a multiple of the product of all "
        "entries, or 1.",
    )
    temporal_attention_blocks: int = field(
        2,
        "Number of temporal attention blocks after each layer of the coarsest level. "
        "0: no temporal attention.",
        least=0,
    )
    temporal_resize_init: str = field(
        "nearest",
        "Initial weights of the layers that change the number of frames. 'nearest': resizing by "
        "nearest neighbour. 'he': random weights by He's rule, the ablation in appendix B of "
        "Lumiere.",
        choices=("nearest", "he"),
    )
    patch_size: int = field(
        1,
        "Side, in pixels, of the square patches that are folded into channels before the first "
        "convolution and unfolded after the last. 1: no patches. Larger patches make the network "
        "cheaper (arXiv 2301.11093, section 3.3).",
        least=1,
    )
    groups: int = field(
        32,
        "Number of groups in each group norm of the clip's features. It must divide the number of "
        "features of every level.",
        least=1,
    )
    heads: int = field(
        0,
        "Number of attention heads in every level, such as 8 for Stable Diffusion 1. It must "
        "divide the number of features of the coarsest level and of every level that attends. "
        "0: as many as `model.head_channels` asks for.",
        least=0,
    )
    head_channels: int = field(
        64,
        "Number of features in each attention head, if `model.heads` is 0. It must be even and "
        "divide the number of features of the coarsest level and of every level that attends.",
        least=2,
    )
    flash_attention: bool = field(
        False,
        "True: on TPUs and NVIDIA GPUs, attention to pixels and text runs in a fused kernel that "
        "never stores the attention scores. TPUs use it where `model.head_channels`, the number of "
        "queries and the number of keys on each chip are multiples of 128; the families 'sd1', "
        "'sd2' and 'sdxl' use it for self-attention with heads of any width. GPUs use it, from the "
        "Ampere generation on, where `model.dtype` is bfloat16 and `model.head_channels` is a "
        "multiple of 8 and at most 128, and the numbers of queries and keys are even. In all other "
        "cases, ordinary attention runs.",
    )
    text_features: int = field(
        768,
        "Width to which the text encoder's token states are projected for attention. The families "
        "'sd1', 'sd2' and 'sdxl' do not project them and need `text.dim` here. 0: a network "
        "without text.",
        least=0,
    )
    text_groups: int = field(
        32,
        "Number of groups in the group norm of text states in attention, for the family 'if'. It "
        "must divide `model.text_features`.",
        least=1,
    )
    text_pooling_heads: int = field(
        8,
        "Number of heads in the attention that pools a caption into one vector, which is added to "
        "the time embedding. It must divide `text.dim`. 0: captions are not pooled.",
        least=0,
    )
    pooled_text_features: int = field(
        0,
        "Width of the pooled text that the text encoder 'sdxl:DIR' gives: 1280 for Stable "
        "Diffusion XL. Only for the family 'sdxl'; 0 for all others.",
        least=0,
    )
    size_features: int = field(
        256,
        "Width of the sinusoidal code of each size that the family 'sdxl' is told: rows and "
        "columns of the picture in pixels, before and after cropping, and where the crop begins. "
        "As in its pipeline, clips count as neither resized nor cropped. It must be even.",
        least=2,
    )
    empty_text_tokens: int = field(
        0,
        "Number of token states that the network sees where there is no caption. They are among "
        "its weights. `stunet inflate` sets it for Stable Diffusion 1 and 2, and makes them the "
        "text encoder's states of an empty caption, as their pipelines do. It must be "
        "`text.max_length`. 0: states of zero.",
        least=0,
    )
    text_only_attention: bool = field(
        False,
        "True: attention sees the text but not the frame's own pixels, which is cheaper at high "
        "resolutions (Imagen, arXiv 2205.11487, appendix B.1).",
    )
    activation: str = field("gelu", "Activation function of the network.", choices=("gelu", "silu"))
    residual_divisor: float = field(
        1.0,
        "The output of each residual block is divided by this number. With the square root of 2, "
        "the sum of two independent paths of equal variance has the variance of one path.",
        above=0,
    )
    time_features: int = field(
        0,
        "Width of the embedding of the noise time (the diffusion time: 0 is clean, 1 is noise). "
        "0: four times the features of the finest level.",
        least=0,
    )
    time_scale: float = field(
        1000.0,
        "The noise time, from 0 to 1, is multiplied by this number before it is turned into "
        "sines and cosines. For pretrained weights, use the number of time steps that they were "
        "trained with.",
        above=0,
    )
    cosine_first: bool = field(
        True,
        "Order of the sinusoidal code of the noise time. True: cosines before sines. False: sines "
        "before cosines.",
    )
    frequency_shift: float = field(
        0.0,
        "Shift s in the frequencies of the sinusoidal code of the noise time. With n "
        "frequencies, frequency i, from 0 to n - 1, is 10000^(-i / (n - s)).",
        least=0,
    )
    level_embedding: bool = field(
        False,
        "For networks with `upscale.factor` above 1: how the network is told the augmentation "
        "level, the amount of noise in the low-resolution clip. True: by an embedding like that of "
        "the noise time. False: by an extra input channel.",
    )
    learned_variance: bool = field(
        False,
        "True: the network has twice as many output channels, and the second half is ignored. "
        "This suits pretrained weights that also predict a variance.",
    )
    dtype: str = field(
        "float32",
        "Floating-point type of the computation. Trained parameters, their running average and "
        "the optimiser's moments are always float32.",
        choices=("float32", "bfloat16"),
    )
    remat: str = field(
        "none",
        "What the backward pass computes again, to save memory at the cost of time. 'none': "
        "nothing; all values are stored. 'dots': all except convolutions, projections and "
        "attention scores. 'projections': all except convolutions and projections. 'full': all of "
        "each block.",
        choices=("none", "full", "projections", "dots"),
    )
    scan_layers: bool = field(
        False,
        "True: equal layers of a level run as one scanned layer, which compiles faster. Their "
        "parameters are stacked.",
    )


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the spatial kernels; other weights are frozen (`stunet.nn.lora`)."""

    rank: int = field(
        0,
        "Rank of the low-rank adapters. Above 0: adapters of the spatial kernels are trained, and "
        "every other weight is frozen. 0: no adapters.",
        least=0,
    )
    alpha: float = field(
        8.0,
        "Strength of the adapters: the product of an adapter's two matrices is multiplied by "
        "`lora.alpha` / `lora.rank`.",
        above=0,
    )


def level_layers(model: Model) -> tuple[int, ...]:
    """Returns the number of layers of each level on the way down, finest level first."""
    return model.layers or (model.layers_per_level,) * len(model.channel_multipliers)


def level_channels(model: Model) -> tuple[int, ...]:
    """Returns the number of features of each level, finest level first."""
    return tuple(round(model.channels * m) for m in model.channel_multipliers)
