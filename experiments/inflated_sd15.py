"""Trains Stable Diffusion 1.5, inflated to 80 frames of 512x512 pixels.

    stunet inflate --t2i stable-diffusion-v1-5 --out runs/sd15 --frames 80
    stunet prepare runs/videos runs/clips --latents stable-diffusion-v1-5/vae --latents-size 512x512
    stunet train --config inflated_sd15 --workdir runs/inflated_sd15 \\
      --config.train.init_from=runs/sd15
    stunet plan --config inflated_sd15 --topology v5p:4x4x4 --memory-only

This is Lumiere's recipe (arXiv 2401.12945) on an open network. It denoises 64x64 latents, and is
the one that `stunet inflate` derives from the pipeline. Batch size, learning rate and number of
updates are chosen here. Stable Diffusion's 859,520,964 parameters are frozen, with the states of an
empty caption, and only the 236,105,600 parameters of the temporal layers are trained.

Hardware and time: on v5p:4x4x4 at a batch of 64, the plan finds 37.7 GiB a chip, of 95.7.

Expected result: unknown. Nothing was trained, and no real weights were run.
"""

from stunet import configs
from stunet.weights.diffusers_families import TEXT_LENGTH, TIME_SCALE

PIPELINE = "stable-diffusion-v1-5"


def get_config():
    config = configs.default()
    config.freeze = "spatial"

    config.model.family = "sd1"
    config.model.channels = 320
    config.model.channel_multipliers = (1, 2, 4, 4)
    config.model.layers_per_level = 2
    config.model.attention_levels = (True, True, True, False)
    config.model.temporal_factors = (1, 2, 2, 2)
    config.model.heads = 8
    config.model.flash_attention = True
    config.model.text_features = 768
    config.model.text_pooling_heads = 0
    config.model.empty_text_tokens = TEXT_LENGTH
    config.model.activation = "silu"
    config.model.time_scale = TIME_SCALE
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"

    config.text.encoder = f"clip:{PIPELINE}/text_encoder"
    config.text.dim = 768
    config.text.max_length = TEXT_LENGTH
    config.autoencoder.path = f"{PIPELINE}/vae"

    config.diffusion.schedule = "scaled_linear"
    config.diffusion.prediction = "eps"
    config.sample.threshold = "none"

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = 80
    config.data.height = config.data.width = 512
    config.data.fps = 16.0

    config.train.steps = 200_000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 5_000
    config.train.ema_decay = 0.9999

    config.log.sample_every = 5_000

    config.mesh.data = 1
    config.mesh.fsdp = 64
    config.mesh.context = -1
    return config
