"""Does temporal resizing learn better if it starts by copying frames?

    stunet sweep --config temporal_resize_init --workdir runs/resize_init --jobs 2
    stunet report runs/resize_init

Lumiere (appendix B) initialises temporal down- and up-sampling so that they copy the nearest frame.
The new layers then keep what the text-to-image network does. This sweep compares that with He's
initialisation. Nothing is pretrained here: both start from scratch, on five seeds, and differ in
nothing else. Each network then makes 120 clips, one for each caption.

Hardware and time: not measured. There are 10 runs of 2,000 updates, of a network half as wide as
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
    members = product(base, {"model.temporal_resize_init": ("nearest", "he"), "seed": range(5)})
    steps = evaluations(members, "--num", "120", "--metrics", "coherence")
    predictions = (
        "Copying frames is ahead: direction and speed are right in up to 10 points more clips.",
        "Both end with the same validation loss within 2%.",
    )
    return Sweep(members + steps, predictions=predictions)
