"""Is it worth while to shrink the clip in time as well as in space, at equal training compute?

Without temporal down-sampling every level sees all frames, and an update costs more: that arm does
fewer, so that both spend the same operations in training.

    stunet sweep --config experiments/sweeps/temporal_downsampling.py --workdir runs/downsampling
    stunet report runs/downsampling
"""

import pathlib

from stunet import configs
from stunet.sweep.members import product, replace
from stunet.train.flops import model_flops
from stunet.train.parts import make_parts

QUICKSTART = pathlib.Path(__file__).parents[1] / "quickstart.py"
STEPS = 400


def get_sweep():
    base = replace(
        configs.load(str(QUICKSTART)),
        {
            "model.channels": 16,
            "model.head_channels": 16,
            "train.steps": STEPS,
        },
    )
    shrinking = configs.resolve(base)
    members = []
    for name, factors in {"downsampled": (1, 2), "all_frames": (1, 1)}.items():
        arm = configs.resolve(replace(base, {"model.temporal_factors": factors}))
        steps = round(STEPS * _update_flops(shrinking) / _update_flops(arm))
        chosen = {
            "train.steps": steps,
            "log.validate_every": steps // 4,
            "log.sample_every": steps,
        }
        members += product(replace(arm, chosen), {"seed": (0, 1, 2)}, name)
    return members


def _update_flops(config):
    parts = make_parts(config)
    return model_flops(parts.denoiser, parts.batch_size)
