"""Distils a small network of gliding discs to 4 sampling steps.

    stunet train --config distilled_glide --workdir runs/glide --config.distil.steps=0 \\
      --config.train.init_from= --config.train.steps=2000 --config.train.learning_rate=3e-3
    stunet train --config distilled_glide --workdir runs/glide_4
    stunet sample text --workdir runs/glide_4 --prompt "" --num 4

The first command trains the teacher. The network sees no captions.
"""

from stunet import configs


def get_config():
    config = configs.default()

    config.data.source = "motions"
    config.data.motion = "glide"
    config.data.object_size = 6.0
    config.data.speed = 2.0
    config.data.frames = 8
    config.data.height = config.data.width = 16
    config.data.channels = 1

    config.model.channels = 32
    config.model.channel_multipliers = (1,)
    config.model.layers_per_level = 1
    config.model.attention_levels = (False,)
    config.model.temporal_factors = (1,)
    config.model.temporal_attention_blocks = 2
    config.model.patch_size = 4
    config.model.groups = 8
    config.model.head_channels = 32
    config.model.text_features = 0
    config.model.activation = "silu"

    config.diffusion.shift = 0.3
    config.diffusion.prediction = "x0"
    config.diffusion.weighting = "uniform"

    config.train.init_from = "runs/glide"
    config.distil.steps = 4
    # A quarter of the default, to learn quickly.
    config.distil.teacher_steps = 16

    config.train.steps = 800
    config.train.batch_size = 16
    config.train.learning_rate = 5e-4
    config.train.final_learning_rate = 0.02
    config.train.ema_decay = 0.99

    config.checkpoint.every = 200
    config.log.every = 50
    config.log.validate_every = 0
    config.log.sample_every = 0

    config.sample.guidance_scale = 1.0
    config.sample.threshold = "static"
    return config
