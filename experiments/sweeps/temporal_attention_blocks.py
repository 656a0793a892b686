"""How many temporal attention blocks does the coarsest level need: none, 1, 2 or 4?

Each block costs operations: the arms do the same number of updates, and the report says what each
computes.

    stunet sweep --config experiments/sweeps/temporal_attention_blocks.py --workdir runs/blocks
    stunet report runs/blocks
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
    return product(base, {"model.temporal_attention_blocks": (0, 1, 2, 4), "seed": (0, 1, 2)})
