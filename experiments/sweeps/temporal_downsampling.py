"""Is it worth while to shrink clips in time as well as in space?

    stunet sweep --config temporal_downsampling --workdir runs/downsampling --jobs 2
    stunet report runs/downsampling

Both arms spend the same operations on training. Without temporal down-sampling every level sees all
frames and an update costs more, so that arm does fewer updates. Each network then makes 120 clips,
one for each caption.

Hardware and time: not measured. There are 10 runs, of a network half as wide as the quickstart's.

Expected result: unknown. The sweep has not run to its end yet.
"""

from stunet import configs
from stunet.sweep.members import Sweep, evaluations, product, replace
from stunet.train.measured.flops import model_flops
from stunet.train.parts import make_parts

STEPS = 2000


def get_sweep():
    base = replace(
        configs.start_from("quickstart"),
        {
            "model.channels": 16,
            "model.head_channels": 16,
            "train.steps": STEPS,
            "log.validate_clips": 128,
        },
    )
    shrinking = configs.resolve(base)
    members = []
    for name, factors in {"downsampled": (1, 2), "all_frames": (1, 1)}.items():
        arm = configs.resolve(replace(base, {"model.temporal_factors": factors}))
        steps = round(STEPS * _update_flops(shrinking) / _update_flops(arm))
        chosen = {
            "train.steps": steps,
            "checkpoint.every": steps,
            "log.validate_every": steps // 4,
        }
        members += product(replace(arm, chosen), {"seed": range(5)}, name)
    steps = evaluations(members, "--num", "120", "--metrics", "coherence")
    predictions = (
        "At equal operations, shrinking in time has the lower validation loss.",
        "It is ahead in the share of clips with the right direction and speed.",
    )
    return Sweep(members + steps, predictions=predictions)


def _update_flops(config):
    parts = make_parts(config)
    return model_flops(parts.denoiser, parts.batch_size)
