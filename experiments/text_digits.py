"""Trains on every caption of moving digits, in ten minutes on one CPU core.

    stunet train --config text_digits --workdir runs/text_digits
    python benchmarks/caption_following.py --workdir runs/text_digits

The quickstart sees at most 32 of the 120 captions. This is the quickstart's network on endless
clips of all 120. Four people's handwriting draws each digit, which may start anywhere. Clips have 8
frames instead of 16, so that the same time trains on twice as many of them.

Hardware and time: 10 minutes of one CPU core for 4,000 updates.

Expected result: 120 clips sampled at guidance 4 show the digit of their caption in 78% of cases
(real clips, read by the same classifier: 98%), its direction in 100% and its speed in 95%.
docs/how-to/sampling.md has the figures for other guidance scales.
"""

from stunet import configs


def get_config():
    config = configs.start_from("quickstart")
    config.data.num_clips = 0
    config.data.digit_styles = 4
    config.data.frames = 8
    config.train.steps = 4000
    config.train.ema_decay = 0.995
    config.checkpoint.every = 500
    config.log.every = 25
    config.log.validate_every = 1000
    return config
