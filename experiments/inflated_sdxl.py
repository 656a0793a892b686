"""Trains Stable Diffusion XL, inflated to 80 frames of 1024x1024 pixels.

    stunet inflate --t2i stable-diffusion-xl-base-1.0 --out runs/sdxl --frames 80
    stunet prepare runs/videos runs/clips --latents stable-diffusion-xl-base-1.0/vae \\
      --latents-size 1024x1024 --text-encoder sdxl:stable-diffusion-xl-base-1.0 \\
      --text-max-length 77
    stunet train --config inflated_sdxl --workdir runs/inflated_sdxl \\
      --config.train.init_from=runs/sdxl
    stunet plan --config inflated_sdxl --topology v5p:4x4x4 --estimate

This is Lumiere's recipe (arXiv 2401.12945) on an open network. It denoises 128x128 latents, and is
the one that `stunet inflate` derives from the pipeline. Batch size, learning rate and number of
updates are chosen here. Stable Diffusion XL's 2,567,463,684 parameters are frozen, and only the
119,731,840 parameters of the temporal layers are trained.

Hardware and time: on v5p:4x4x4 at a batch of 16, the plan finds 29.8 GiB a chip, of 95.7.

Expected result: unknown. Nothing was trained, and no real weights were run.
"""

from stunet import configs
from stunet.weights.diffusers_families import TEXT_LENGTH, TIME_SCALE

PIPELINE = "stable-diffusion-xl-base-1.0"


def get_config():
    config = configs.default()
    config.freeze = "spatial"

    config.model.family = "sdxl"
    config.model.channels = 320
    config.model.channel_multipliers = (1, 2, 4)
    config.model.layers_per_level = 2
    config.model.attention_levels = (False, True, True)
    config.model.transformer_layers = (1, 2, 10)
    config.model.temporal_factors = (1, 2, 2)
    config.model.head_channels = 64
    config.model.flash_attention = True
    config.model.text_features = 2048
    config.model.text_pooling_heads = 0
    config.model.pooled_text_features = 1280
    config.model.activation = "silu"
    config.model.time_scale = TIME_SCALE
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"

    config.text.encoder = f"sdxl:{PIPELINE}"
    config.text.dim = 2048
    config.text.max_length = TEXT_LENGTH
    config.autoencoder.path = f"{PIPELINE}/vae"

    config.diffusion.schedule = "scaled_linear"
    config.diffusion.prediction = "eps"
    config.sample.threshold = "none"

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = 80
    config.data.height = config.data.width = 1024
    config.data.fps = 16.0

    config.train.steps = 200_000
    config.train.batch_size = 16
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 5_000
    config.train.ema_decay = 0.9999

    config.log.sample_every = 5_000

    config.mesh.data = 1
    config.mesh.fsdp = 16
    config.mesh.context = 4
    return config
