"""Trains one network of Lumiere in small: its argument says which one.

    python experiments/fetch_handwriting.py runs/handwriting.npz
    stunet train --config lumiere_mini:text_to_image --workdir runs/lumiere/text_to_image
    stunet train --config lumiere_mini:base --workdir runs/lumiere/base \\
      --config.train.init_from=runs/lumiere/text_to_image

The sweep `lumiere_gallery` (`make lumiere`) trains all of them, in this order:

    text_to_image   pictures of coloured digits, from captions such as "a red 7 on blue stripes"
    base            the same network, inflated: its weights are frozen, and temporal layers learn
                    clips, from captions such as "a red 7 moving right, fast, on blue stripes"
    masks           the base network, fine-tuned to continue and to repaint what it is given
    upscale         enlarges clips four times, window by window
    style_neon, style_paper   the text-to-image network, fine-tuned on 24 pictures in a style

The recipe is Lumiere's (arXiv 2401.12945). Sizes, data and numbers of updates are chosen here.
`lumiere_mini:base,gpu` is a larger size for one GPU, and `lumiere_mini:base,smoke` a tiny one,
which only shows that everything runs.
"""

import dataclasses

from stunet import configs
from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Size:
    """The values that depend on the machine.

    Attributes:
        frames: frames in each clip.
        side: rows and columns of a frame, in pixels.
        model: keys of the group `model`.
        upscale_model: keys of the group `model` that differ in the super-resolution network.
        window: frames that the super-resolution network enlarges at a time.
        updates: number of updates of each stage.
        batch: clips or pictures in each update, by stage.
        dtype: precision of the computation.
        handwriting: file of handwriting; "" for scikit-learn's.
        styles: handwritten images of each digit; 0 for all.
    """

    frames: int
    side: int
    model: dict
    upscale_model: dict
    window: int
    updates: dict
    batch: dict
    dtype: str = "float32"
    handwriting: str = "runs/handwriting.npz"
    styles: int = 10


SIZES = {
    "cpu": Size(
        frames=16,
        side=32,
        model=dict(channels=48, channel_multipliers=(1, 2), patch_size=4),
        upscale_model=dict(channels=32, channel_multipliers=(1, 2), patch_size=4),
        window=8,
        updates=dict(text_to_image=40_000, base=6000, masks=2500, upscale=3000, style=400),
        batch=dict(text_to_image=16, base=8, masks=8, upscale=2, style=24),
    ),
    "smoke": Size(
        frames=4,
        side=16,
        model=dict(channels=8, channel_multipliers=(1, 1), patch_size=4),
        upscale_model=dict(channels=8, channel_multipliers=(1, 1), patch_size=8),
        window=3,
        updates=dict(text_to_image=4, base=4, masks=2, upscale=2, style=2),
        batch=dict(text_to_image=4, base=2, masks=2, upscale=1, style=4),
        handwriting="",
    ),
    "gpu": Size(
        frames=32,
        side=64,
        model=dict(channels=128, channel_multipliers=(1, 2, 3), patch_size=2),
        upscale_model=dict(channels=64, channel_multipliers=(1, 2, 4), patch_size=4),
        window=8,
        updates=dict(text_to_image=20_000, base=20_000, masks=8_000, upscale=10_000, style=1_000),
        batch=dict(text_to_image=256, base=16, masks=16, upscale=4, style=24),
        dtype="bfloat16",
        styles=0,
    ),
}
FACTOR = 4
# Pictures that a style is learnt from.
STYLE_PICTURES = 24


def get_config(argument: str = "base"):
    stage, _, name = argument.partition(",")
    size = _choose(SIZES, name or "cpu", "size")
    config = _common(size)
    _choose(STAGES, stage, "stage")(config, size)
    kind = stage.partition("_")[0] if stage.startswith("style") else stage
    config.train.steps = steps = size.updates[kind]
    config.train.batch_size = size.batch[kind]
    config.checkpoint.every = config.log.validate_every = max(1, steps // 4)
    config.train.warmup_steps = min(100, steps // 4)
    config.log.every = min(50, max(1, steps // 4))
    return config


def text_to_image(config, size):
    config.model.temporal = False
    config.data.frames = 1


def base(config, size):
    config.freeze = "spatial"
    config.train.init_from = "runs/lumiere/text_to_image"


def masks(config, size):
    base(config, size)
    config.train.init_from = "runs/lumiere/base"
    config.masks.text = 0.1
    config.masks.image = 0.3
    config.masks.inpaint = 0.3
    config.masks.outpaint = 0.1
    config.masks.cinemagraph = 0.2


def upscale(config, size):
    for key, value in size.upscale_model.items():
        config.model[key] = value
    levels = len(size.upscale_model["channel_multipliers"])
    config.model.attention_levels = (False,) * levels
    # A window is short, and all of its frames matter.
    config.model.temporal_factors = (1,) * levels
    config.model.temporal_attention_blocks = 1
    # The low-resolution clip shows all that the caption says.
    config.model.text_features = 0
    config.sample.guidance_scale = 1.0
    config.sample.steps = 12
    config.upscale.factor = FACTOR
    config.upscale.max_augmentation = 0.3
    config.diffusion.shift = config.diffusion.shift / FACTOR
    config.data.frames = size.window
    for key in ("height", "width", "digit_size", "speed"):
        config.data[key] = config.data[key] * FACTOR


def style(look):
    def change(config, size):
        text_to_image(config, size)
        config.train.init_from = "runs/lumiere/text_to_image"
        config.data.look = look
        config.data.num_clips = STYLE_PICTURES
        config.train.learning_rate = 5e-4
        config.log.validate_clips = STYLE_PICTURES

    return change


STAGES = {
    "text_to_image": text_to_image,
    "base": base,
    "masks": masks,
    "upscale": upscale,
    "style_neon": style("neon"),
    "style_paper": style("paper"),
}


def _common(size):
    config = configs.default()
    levels = len(size.model["channel_multipliers"])
    for key, value in size.model.items():
        config.model[key] = value
    config.model.layers_per_level = 1
    config.model.attention_levels = (*[False] * (levels - 1), True)
    config.model.temporal_factors = (1, *[2] * (levels - 1))
    config.model.temporal_attention_blocks = 2
    config.model.groups = 8
    config.model.head_channels = min(32, size.model["channels"])
    config.model.text_features = 64
    config.model.text_groups = 8
    config.model.text_pooling_heads = 4
    config.model.activation = "silu"
    config.model.dtype = size.dtype

    config.text.max_length = 14

    config.diffusion.shift = 0.5
    config.diffusion.weighting = "uniform"
    # As in the quickstart: a narrow network has no room to carry the noise through.
    config.diffusion.prediction = "x0"

    config.data.source = "moving_digits"
    config.data.path = size.handwriting
    config.data.look = "colours"
    # Without trails, a picture does not show what words of motion mean, and a frozen text-to-image
    # network keeps them from the temporal layers.
    config.data.trail = 0.6
    config.data.frames = size.frames
    config.data.height = config.data.width = size.side
    # Small digits, or many people's handwriting, take several times as many pictures to learn.
    config.data.digit_size = size.side * 3 // 4
    config.data.digit_styles = size.styles
    config.data.speed = size.side / 32
    config.data.channels = 3
    config.data.fps = 8.0

    config.train.learning_rate = 2e-3
    config.train.final_learning_rate = 0.02
    config.train.ema_decay = 0.995

    config.log.sample_every = 0
    config.log.validate_clips = 64

    config.sample.steps = 40
    config.sample.guidance_scale = 4.0
    config.sample.threshold = "static"
    return config


def _choose(table, name, what):
    if name not in table:
        raise UserError(f"there is no {what} {name!r}; choose one of {', '.join(table)}")
    return table[name]
