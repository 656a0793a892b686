"""Does temporal resizing learn better from nearest neighbour than from He's initialisation?

Lumiere (appendix B) begins with temporal down- and up-sampling that copy frames, so that the new
layers keep what the text-to-image network does. Nothing is pretrained here: what is compared is the
initialisation alone, from scratch, on three seeds, with all else equal.

    stunet sweep --config experiments/sweeps/temporal_resize_init.py --workdir runs/resize_init
    stunet report runs/resize_init
"""

import pathlib

from stunet import configs
from stunet.sweep.members import product, replace

QUICKSTART = pathlib.Path(__file__).parents[1] / "quickstart.py"


def get_sweep():
    base = replace(
        configs.load(str(QUICKSTART)),
        {
            "model.channels": 16,
            "model.head_channels": 16,
            "train.steps": 400,
            "log.validate_every": 100,
            "log.sample_every": 400,
        },
    )
    return product(base, {"model.temporal_resize_init": ("nearest", "he"), "seed": (0, 1, 2)})
