"""Trains the first network of a keyframe cascade: 4 keyframes, 5 frames apart.

    stunet train --config cascade_keyframes --workdir runs/keyframes
    stunet train --config cascade_tsr_windowed --workdir runs/tsr
    stunet sample text --workdir runs/keyframes --tsr runs/tsr --prompt "a 7 moving right, fast"

A cascade samples keyframes from the caption first, and then fills in the frames between them.
Network, data and settings are those of memorised_digits.py. Of its clips of 16 frames, the
keyframes are frames 0, 5, 10 and 15.

Keyframes alias fast motion. A fast digit moves 2 pixels a frame, so it is 10 pixels further at the
next keyframe. The canvas wraps around after 16 pixels: the same keyframes also show a digit that
moves 6 pixels the other way.

Hardware and time: half of the operations of memorised_digits.py, which trains in two minutes on two
CPU cores: 800 updates, each with half as many frames.

Expected result: not measured; these digits were tried for 20 updates only. The sweep
single_pass_vs_cascade measures trained cascades.
"""

from stunet import configs


def get_config():
    config = configs.start_from("memorised_digits")
    config.data.frames = 4
    config.data.stride = 5
    config.train.batch_size = 16
    return config
