"""DeepFloyd IF's stage I, the largest, inflated: 80 frames of 64x64 pixels, frozen but for time.

    stunet inflate --t2i IF-I-XL-v1.0/unet --out runs/if_xl --frames 80
    stunet train --config experiments/inflated_if_xl.py --workdir runs/inflated_if_xl \\
      --config.train.init_from=runs/if_xl --config.text.encoder=t5:IF-I-XL-v1.0/text_encoder
    stunet plan --config experiments/inflated_if_xl.py --topology v5p:4x4x4 --memory-only

Lumiere's recipe (arXiv 2401.12945) on open weights: its own text-to-image model is not public. The
network is what `stunet inflate` derives from that U-Net's config.json; batch, learning rate and
length of the training are chosen here. Of its parameters 4,304,695,110 are IF's, and frozen.
Nothing was trained; docs/how-to/inflation.md has the plan.
"""

from stunet import configs
from stunet.weights.diffusers_config import LOG_SNR_MAX, LOG_SNR_MIN, TEXT_LENGTH, TIME_SCALE


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
