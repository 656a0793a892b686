"""Trains the second network of a keyframe cascade, on windows between keyframes.

    stunet train --config cascade_tsr_windowed --workdir runs/tsr

cascade_keyframes.py trains the first network, and has the command that samples with both. This is
temporal super-resolution as in Imagen Video and Make-A-Video: a window knows the keyframes at its
ends and nothing else. Each window has 6 frames, and the first and the last are given. Windows are
cut from the same 16-frame clips as the keyframes, and 3 windows make up a clip.

Hardware and time: half of the operations of memorised_digits.py, which trains in two minutes on two
CPU cores.

Expected result: not measured; these digits were tried for 20 updates only. The sweep
single_pass_vs_cascade measures trained cascades.
"""

from stunet import configs


def get_config():
    config = configs.start_from("memorised_digits")
    config.data.frames = 6
    config.data.cut_from = 16
    config.tsr.stride = 5
    # Keyframes that are hidden by more teach nothing that sampling asks for.
    config.tsr.max_augmentation = 0.5
    config.train.batch_size = 11
    return config
