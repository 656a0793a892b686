"""Memorises 32 clips of moving digits, in two minutes on two CPU cores.

    stunet train --config memorised_digits --workdir runs/memorised_digits
    stunet sample text --workdir runs/memorised_digits --prompt "a 7 moving right, fast"

This is the quickstart's network on the first 32 clips alone. Keyframe cascades and sweeps start
from this config, because a clip that is memorised needs few updates. Prompts should be captions of
the 32 clips, such as "a 0 moving right, slowly", "a 9 moving left" or "a 5 moving up".

Hardware and time: two minutes on 2 AVX-512 cores, at 51 clips a second, and 2.2 GiB of memory.

Expected result: a training loss of 0.058, and a loss of 0.139 on held-out handwriting.
"""

from stunet import configs


def get_config():
    config = configs.start_from("quickstart")
    config.data.num_clips = 32
    config.data.frames = 16
    config.data.digit_styles = 0
    config.train.steps = 800
    config.train.ema_decay = 0.99
    config.checkpoint.every = 200
    config.log.every = 10
    config.log.validate_every = 800
    config.sample.guidance_scale = 2.0
    return config
