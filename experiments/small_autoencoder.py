"""Trains a small autoencoder on moving digits, for training on its latents.

    stunet train --config small_autoencoder --workdir runs/small_autoencoder
    stunet export --workdir runs/small_autoencoder --out runs/vae --format autoencoder

Each frame of 32x32 pixels becomes 8x8 latents with 4 channels. Pictures of any source will do: set
data.source and data.path, data.height and data.width. docs/how-to/latents.md goes on from here.

Hardware and time: 104 s of processor time on AVX-512 cores, compiling included, and 1.2 GiB.

Expected result: reconstructions of held-out pictures have 28.3 dB (val/psnr).
"""

from stunet import configs


def get_config():
    config = configs.default()

    # Each level after the first halves rows and columns.
    config.autoencoder.level_features = (8, 16, 32)
    config.autoencoder.channels = 4
    config.autoencoder.layers_per_level = 1
    config.autoencoder.groups = 8

    config.data.source = "moving_digits"
    config.data.digit_size = 16
    config.data.frames = 1
    config.data.height = config.data.width = 32
    config.data.channels = 3

    config.train.steps = 1200
    config.train.batch_size = 16
    config.train.learning_rate = 2e-3
    config.train.final_learning_rate = 0.02
    config.train.ema_decay = 0.995

    config.checkpoint.every = 400
    config.log.validate_every = 400
    config.log.validate_clips = 128
    config.log.sample_every = 400
    return config
