"""How many temporal attention blocks does the coarsest level need: 0, 1, 2 or 4?

    stunet sweep --config temporal_attention_blocks --workdir runs/blocks
    stunet report runs/blocks

Every arm does the same number of updates, although each block costs operations. The report says how
many operations each arm computes.

Hardware and time: not measured. There are 12 runs of 400 updates, of a network half as wide as
the quickstart's.

Expected result: unknown. The sweep has not run to its end yet.
"""

from stunet import configs
from stunet.sweep.members import product, replace


def get_sweep():
    base = replace(
        configs.start_from("memorised_digits"),
        {
            "model.channels": 16,
            "model.head_channels": 16,
            "train.steps": 400,
            "log.validate_every": 100,
            "log.sample_every": 400,
        },
    )
    return product(base, {"model.temporal_attention_blocks": (0, 1, 2, 4), "seed": (0, 1, 2)})
