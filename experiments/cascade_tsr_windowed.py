"""The quickstart as a keyframe cascade, second network: the 4 frames between two keyframes.

As cascades do it (Imagen Video, Make-A-Video), a window knows the keyframes at its ends and nothing
else: clips of 6 frames, of which the first and the last are given, cut from the same clips of 16
frames that the keyframes are of. 3 windows make up a clip. Commands are in cascade_keyframes.py.
"""

import pathlib
import runpy


def get_config():
    quickstart = pathlib.Path(__file__).with_name("quickstart.py")
    config = runpy.run_path(str(quickstart))["get_config"]()
    config.data.frames = 6
    config.data.cut_from = 16
    config.tsr.stride = 5
    # Keyframes that are hidden by more teach nothing that sampling asks for.
    config.tsr.max_augmentation = 0.5
    config.train.batch_size = 11
    return config
