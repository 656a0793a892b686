"""Trains DeepFloyd IF's stage I (XL), inflated to 80 frames of 64x64 pixels.

    stunet inflate --t2i IF-I-XL-v1.0/unet --out runs/if_xl --frames 80
    stunet train --config inflated_if_xl --workdir runs/inflated_if_xl \\
      --config.train.init_from=runs/if_xl --config.text.encoder=t5:IF-I-XL-v1.0/text_encoder
    stunet plan --config inflated_if_xl --topology v5p:4x4x4 --memory-only

This is Lumiere's recipe (arXiv 2401.12945) on open weights, since Lumiere's own text-to-image model
is not public. The network is the one that `stunet inflate` derives from the U-Net's config.json.
Batch size, learning rate and number of updates are chosen here. IF's 4,304,695,110 parameters are
frozen, and only the 1,203,347,904 parameters of the temporal layers are trained.

Hardware and time: on v5p:4x4x4 at a batch of 64, the plan finds 37.5 GiB a chip, of 95.7.
docs/how-to/inflation.md has the rest of the plan.

Expected result: unknown. Nothing was trained, and no real IF weights were run.
"""

from stunet import configs
from stunet.weights.diffusers_families import LOG_SNR_MAX, LOG_SNR_MIN, TEXT_LENGTH, TIME_SCALE


def get_config():
    config = configs.default()
    config.freeze = "spatial"

    config.model.channels = 704
    config.model.channel_multipliers = (1, 2, 3, 4)
    config.model.layers_per_level = 3
    config.model.attention_levels = (False, True, True, True)
    config.model.temporal_factors = (1, 2, 2, 2)
    config.model.head_channels = 64
    config.model.text_features = 2816
    config.model.text_pooling_heads = 64
    config.model.activation = "gelu"
    config.model.time_scale = TIME_SCALE
    config.model.learned_variance = True
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"
    config.model.scan_layers = True

    config.text.dim = 4096
    config.text.max_length = TEXT_LENGTH

    config.diffusion.schedule = "iddpm"
    config.diffusion.log_snr_max = LOG_SNR_MAX
    config.diffusion.log_snr_min = LOG_SNR_MIN
    config.diffusion.prediction = "eps"

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = 80
    config.data.height = config.data.width = 64
    config.data.fps = 16.0

    config.train.steps = 200_000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 5_000
    config.train.ema_decay = 0.9999

    # A preview takes 50 steps of two clips a chip, or 33 updates' time.
    config.log.sample_every = 5_000

    config.mesh.data = 1
    config.mesh.fsdp = 64
    config.mesh.context = -1
    return config
