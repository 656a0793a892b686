"""Trains the second network of a keyframe cascade, on all keyframes at once.

    stunet train --config cascade_tsr_global --workdir runs/tsr_global

cascade_keyframes.py trains the first network, and has the command that samples with both (give
`--tsr runs/tsr_global` there). Here each frame is filled in with all 4 keyframes of the clip in
sight, not only two as in cascade_tsr_windowed.py. That makes it the fairest opponent of a single
pass.

Hardware and time: half of the operations of memorised_digits.py, which trains in two minutes on two
CPU cores.

Expected result: not measured; these digits were not tried. The sweep single_pass_vs_cascade
measures trained cascades.
"""

from stunet import configs


def get_config():
    config = configs.start_from("memorised_digits")
    config.tsr.stride = 5
    # Keyframes that are hidden by more teach nothing that sampling asks for.
    config.tsr.max_augmentation = 0.5
    config.train.batch_size = 4
    return config
