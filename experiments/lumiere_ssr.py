"""Trains Lumiere's super-resolution to 1024x1024 pixels, in windows of 16 frames.

    stunet prepare VIDEOS runs/clips_1024 --side 1024 --fps 16 ...
    stunet plan --config lumiere_ssr --topology v5p:4x4x4 --memory-only

The paper (arXiv 2401.12945) gives the two resolutions and the 16 frames per second of the base
model. It also says that super-resolution works on overlapping windows of a clip, and that the base
model has made all frames of the clip. Everything else is undisclosed and chosen here:

* the window of 16 frames
* text of T5-XXL's width, as in the base model
* how the low-resolution clip is given: with noise-conditioning augmentation, as in Imagen (arXiv
  2205.11487, section 2.4)
* the network, which resizes no time
* the noise schedule and the training

The network follows Imagen's Efficient U-Net (section 2.5): most weights lie where pixels are few.
The finest level has 128 features, and the coarsest, the only one with attention, has 1024. It
differs in three ways. All levels have the same depth. Blocks of temporal attention are stacked at
the coarsest level. And 2x2 pixels are folded into channels ("simple diffusion", arXiv 2301.11093),
so that the finest level has 512x512 positions and the coarsest 32x32.

The network has 464,320,140 parameters. The forward pass of a clip takes 6.68e13 operations, two
thirds of the base model's. Both figures are counted from shapes.

Hardware and time: on v5p:4x4x4 at a batch of 64, the plan finds 31.4 GiB a chip, of 95.7.

Expected result: unknown. Nothing was trained.
"""

from stunet import configs


def get_config():
    config = configs.default()

    # Few features where there are many pixels, many where there are few.
    config.model.channels = 128
    config.model.channel_multipliers = (1, 1, 2, 4, 8)
    config.model.layers_per_level = 2
    config.model.attention_levels = (False, False, False, False, True)
    config.model.temporal_factors = (1, 1, 1, 1, 1)
    config.model.temporal_attention_blocks = 4
    config.model.patch_size = 2
    config.model.head_channels = 128
    config.model.text_pooling_heads = 64
    config.model.activation = "silu"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.model.scan_layers = True

    config.text.dim = 4096
    config.text.max_length = 128

    config.diffusion.shift = 0.25

    config.upscale.factor = 8
    config.upscale.max_augmentation = 1.0

    config.data.source = "clips"
    config.data.path = "runs/clips_1024"
    config.data.frames = 16
    config.data.height = config.data.width = 1024
    config.data.fps = 16.0

    config.train.steps = 200_000
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 5_000
    config.train.ema_decay = 0.9999

    # A preview takes 50 steps of two clips a chip, or 33 updates' time.
    config.log.sample_every = 5_000

    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
