"""The quickstart as a keyframe cascade, second network: all frames between all keyframes at once.

The single pass's fairest opponent: as cascade_tsr_windowed.py, but each frame is filled in with
all 4 keyframes of the clip in sight. Commands are in cascade_keyframes.py.
"""

import pathlib
import runpy


def get_config():
    quickstart = pathlib.Path(__file__).with_name("quickstart.py")
    config = runpy.run_path(str(quickstart))["get_config"]()
    config.tsr.stride = 5
    # Keyframes that are hidden by more teach nothing that sampling asks for.
    config.tsr.max_augmentation = 0.5
    config.train.batch_size = 4
    return config
