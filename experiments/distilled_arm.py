"""Distils a network of turning arms to 4 sampling steps.

    stunet train --config distilled_arm --workdir runs/arm --config.distil.steps=0 \\
      --config.train.init_from= --config.train.steps=10000 --config.train.learning_rate=2e-3 \\
      --config.train.ema_decay=0.998
    stunet train --config distilled_arm --workdir runs/arm_4
    stunet sample text --workdir runs/arm_4 --prompt "" --num 4
"""

from stunet import configs


def get_config():
    config = configs.default()

    config.data.source = "motions"
    config.data.motion = "rotate"
    config.data.frames = 22
    config.data.height = config.data.width = 16
    config.data.channels = 1
    config.data.object_size = 6.0
    # A turn takes 8 to 56 frames.
    config.data.period = 21.166010488516722
    config.data.speed_octaves = 1.403677461028802

    config.model.channels = 32
    config.model.channel_multipliers = (1, 2)
    config.model.layers_per_level = 1
    config.model.attention_levels = (False, True)
    config.model.temporal_factors = (1, 2)
    config.model.patch_size = 4
    config.model.groups = 8
    config.model.head_channels = 32
    config.model.text_features = 0
    config.model.activation = "silu"

    config.diffusion.shift = 0.3
    config.diffusion.prediction = "x0"
    config.diffusion.weighting = "uniform"

    config.train.init_from = "runs/arm"
    config.distil.steps = 4
    config.distil.teacher_steps = 32

    config.train.steps = 300
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 20
    config.train.final_learning_rate = 0.02
    config.train.ema_decay = 0.98

    config.checkpoint.every = 100
    config.log.every = 20
    config.log.validate_every = 0
    config.log.sample_every = 0

    config.sample.guidance_scale = 1.0
    config.sample.threshold = "static"
    return config
