"""How many temporal attention blocks does the coarsest level need: 0, 1, 2 or 4?

    stunet sweep --config temporal_attention_blocks --workdir runs/blocks --jobs 2
    stunet report runs/blocks

Every arm does the same number of updates on five seeds, although each block costs operations. The
report says how many operations each arm computes. Each network then makes 120 clips, one for each
caption.

Hardware and time: not measured. There are 20 runs of 2,000 updates, of a network half as wide as
the quickstart's.

Expected result: unknown. The sweep has not run to its end yet.
"""

from stunet import configs
from stunet.sweep.members import Sweep, evaluations, product, replace


def get_sweep():
    base = replace(
        configs.start_from("quickstart"),
        {
            "model.channels": 16,
            "model.head_channels": 16,
            "train.steps": 2000,
            "checkpoint.every": 2000,
            "log.validate_every": 500,
            "log.validate_clips": 128,
        },
    )
    grid = {"model.temporal_attention_blocks": (0, 1, 2, 4), "seed": range(5)}
    members = product(base, grid)
    steps = evaluations(members, "--num", "120", "--metrics", "coherence")
    predictions = (
        "Without a block, direction and speed are right in the fewest clips.",
        "Two and four blocks cannot be told apart by five seeds.",
    )
    return Sweep(members + steps, predictions=predictions)
