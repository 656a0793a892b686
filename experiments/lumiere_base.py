"""Trains Lumiere's base model, 80 frames of 128x128 pixels, on 64 TPU v5p chips.

    stunet plan --config lumiere_base --topology v5p:4x4x4
    stunet train --config lumiere_base --workdir gs://BUCKET/runs/lumiere_base

The paper (arXiv 2401.12945) gives the number of frames, the pixels and the seven input channels. A
third party reports the size, about 1.2 B parameters; this network has 1,213,499,907. The paper
discloses neither widths, depth and temporal factors nor anything of the training: these are chosen
here. 80 = 16 x 5, so time can shrink 8 times at most. Widths are multiples of 256, the side of the
newest TPUs' matrix units. Text has the width of T5-XXL.

Hardware and time: on v5p:4x4x4 at a batch of 64, the plan predicts 1.052 s a step, 61.9% of the
peak, 45.5 GiB a chip, and 3,742 chip-hours for 200,000 steps. docs/how-to/plan.md has other
topologies.

Expected result: unknown. Nothing was trained.
"""

from stunet import configs


def get_config():
    config = configs.default()

    config.model.channels = 256
    config.model.channel_multipliers = (1, 2, 4, 5)
    config.model.layers_per_level = 3
    config.model.attention_levels = (False, False, True, True)
    config.model.temporal_factors = (1, 2, 2, 2)
    config.model.temporal_attention_blocks = 4
    config.model.head_channels = 128
    config.model.text_pooling_heads = 64
    config.model.activation = "silu"
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"
    config.model.scan_layers = True

    config.text.dim = 4096
    config.text.max_length = 128

    config.diffusion.shift = 0.25

    config.masks.text = 0.4
    config.masks.image = 0.3
    config.masks.inpaint = 0.1
    config.masks.outpaint = 0.1
    config.masks.cinemagraph = 0.1

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = 80
    config.data.height = config.data.width = 128
    config.data.fps = 16.0

    config.train.steps = 200_000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 5_000
    config.train.ema_decay = 0.9999

    # A preview takes 50 steps of two clips a chip, or 33 updates' time.
    config.log.sample_every = 5_000

    # With fsdp 64, the compiler gathers weights by all-reduces, which send twice as much.
    config.mesh.data = 4
    config.mesh.fsdp = 16
    config.mesh.context = -1
    return config
