"""The quickstart as a keyframe cascade, first network: 4 keyframes, 5 frames apart, from a caption.

    stunet train --config experiments/cascade_keyframes.py --workdir runs/keyframes
    stunet train --config experiments/cascade_tsr_windowed.py --workdir runs/tsr
    stunet sample text --workdir runs/keyframes --tsr runs/tsr --prompt "a 7 moving right, fast"

Network, data and settings are the quickstart's, whose 16 frames these are 0, 5, 10 and 15 of. A
digit that moves fast, 2 pixels a frame, is 10 pixels further at the next keyframe, of the 16 after
which it is back where it was: as far as 6 pixels in the other direction.

Each of the two networks of the cascade trains with half of the quickstart's operations, 800 updates
of half as many frames.
"""

import pathlib
import runpy


def get_config():
    quickstart = pathlib.Path(__file__).with_name("quickstart.py")
    config = runpy.run_path(str(quickstart))["get_config"]()
    config.data.frames = 4
    config.data.stride = 5
    config.train.batch_size = 16
    return config
