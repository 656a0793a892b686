"""Does temporal resizing learn better if it starts by copying frames?

    stunet sweep --config temporal_resize_init --workdir runs/resize_init
    stunet report runs/resize_init

Lumiere (appendix B) initialises temporal down- and up-sampling so that they copy the nearest frame.
The new layers then keep what the text-to-image network does. This sweep compares that with He's
initialisation. Nothing is pretrained here: both start from scratch, on three seeds, and differ in
nothing else.

Hardware and time: not measured. There are 6 runs of 400 updates, of a network half as wide as
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
    return product(base, {"model.temporal_resize_init": ("nearest", "he"), "seed": (0, 1, 2)})
