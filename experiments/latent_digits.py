"""Trains on the latents of moving digits, which a small autoencoder makes.

    stunet train --config small_autoencoder --workdir runs/small_autoencoder
    stunet export --workdir runs/small_autoencoder --out runs/vae --format autoencoder
    stunet data --config latent_digits --num 4000 --out runs/digits
    stunet prepare runs/digits/train.jsonl runs/digit_shots --side 32 --fps 8 --min-seconds 1 \\
      --val-fraction 0 --cut-threshold 0 --latents runs/vae --latents-size 32x32
    stunet train --config latent_digits --workdir runs/latent_digits
    stunet sample text --workdir runs/latent_digits --prompt "a 7 moving right, fast"

The network is that of quickstart, and sees 8x8 latents where quickstart sees 8x8 patches of pixels.

Hardware and time: 37 min on one AVX-512 core, compiling included, and 2.0 GiB.

Expected result: of 120 clips sampled at guidance 4, 95% show the digit of their caption, 100% its
direction and 100% its speed; 95% show all three (real clips, read by the same classifier: 97%).
docs/how-to/latents.md says more.
"""

from stunet import configs


def get_config():
    config = configs.start_from("quickstart")
    config.model.patch_size = 1

    config.autoencoder.path = "runs/vae"
    config.autoencoder.factor = 4
    config.autoencoder.channels = 4

    # Latents vary more than the quickstart's pixels, so noise must be stronger to hide the digits.
    config.diffusion.shift = 0.25

    # Held-out clips are drawn, and encoded when they are read. Training reads stored latents.
    config.data.digit_size = 16
    config.data.speed = 2.0
    config.data.height = config.data.width = 32
    config.data.channels = 3
    config.data.weight = 0.0
    config.data.mix = {"shots": {"source": "clips", "path": "runs/digit_shots", "weight": 1.0}}

    config.train.steps = 12000
    config.checkpoint.every = 2000
    config.log.validate_every = 2000

    config.sample.threshold = "none"
    return config
