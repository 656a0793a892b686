"""Trains on three short real videos, 16 frames of 32x32 pixels in colour.

    python experiments/fetch_real_clips.py runs/videos
    stunet prepare runs/videos runs/clips --val-seconds 2
    stunet train --config real_clips --workdir runs/real_clips

The videos show street traffic, a night skyline and a talking head. `stunet prepare` stores them as
8 shots, of which 4.8 seconds are held out. An epoch has 9 clips, and 3 are held out.

Hardware and time: 2 min 16 s on two CPU cores, for 300 updates of 2 clips.

Expected result: the training loss falls from 0.334 to about 0.043, and the loss on the held-out
clips from 0.109 (update 100) to 0.089.

A check of network, objective and sampler together is to learn a single clip, so that sampling
returns it: `--config.data.num_clips=1`. docs/how-to/data.md has the whole command.
Expected result: 31.7 dB for each of three seeds, after 6 min 27 s of training on two busy CPU
cores.
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
