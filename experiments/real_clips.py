"""Short clips of real videos, 16x32x32 in colour: street traffic, a night skyline, a talking head.

    python experiments/fetch_real_clips.py runs/videos
    stunet prepare runs/videos runs/clips --frames 16 --fps 12 --height 32 --width 32
    stunet train --config experiments/real_clips.py --workdir runs/real_clips

Overfitting a single clip, so that sampling returns it, shows that network, objective and sampler
agree: `--config.data.num_clips=1` (docs/how-to/data.md).
"""

from stunet import configs


def get_config():
    config = configs.default()
    config.model.channels = 32
    config.model.channel_multipliers = (1, 2, 4)
    config.model.layers_per_level = 1
    config.model.attention_levels = (False, True, True)
    config.model.temporal_factors = (1, 2, 2)
    config.model.temporal_attention_blocks = 1
    config.model.patch_size = 2
    config.model.groups = 8
    config.model.head_channels = 32
    config.model.text_features = 64
    config.model.text_groups = 8
    config.model.text_pooling_heads = 4
    config.model.activation = "silu"
    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.height = config.data.width = 32
    config.data.channels = 3
    config.data.fps = 12.0
    config.diffusion.prediction = "x0"
    config.diffusion.weighting = "uniform"
    config.train.steps = 300
    config.train.batch_size = 2
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 30
    config.train.ema_decay = 0.99
    config.checkpoint.every = 100
    config.log.every = 10
    config.log.validate_every = 100
    config.log.validate_clips = 4
    config.log.sample_every = 300
    config.sample.steps = 30
    config.sample.guidance_scale = 1.0
    config.sample.threshold = "static"
    config.sample.num = 2
    return config
