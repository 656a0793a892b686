"""What an experiment may say.

Every key, its default and its range is in `schema`. `experiments/*.py` start from `default()`, an
ml_collections ConfigDict of the same keys; `load` reads such a file with the command line's
overrides; `resolve` checks it and returns the frozen `Config` that the rest of the program uses.
"""

from stunet.configs.experiments import start_from
from stunet.configs.reading import (
    default,
    differences,
    items,
    load,
    override,
    read,
    resolve,
    same_text,
    write,
)
from stunet.configs.schema import (
    FREE_TO_CHANGE,
    Checkpoint,
    Config,
    Data,
    Diffusion,
    Log,
    Lora,
    Masks,
    Mesh,
    Model,
    Profile,
    Sample,
    Text,
    Train,
    Tsr,
    Upscale,
    frame_rate,
    leaves,
    level_channels,
    level_layers,
    span,
)

__all__ = [
    "FREE_TO_CHANGE",
    "Checkpoint",
    "Config",
    "Data",
    "Diffusion",
    "Log",
    "Lora",
    "Masks",
    "Mesh",
    "Model",
    "Profile",
    "Sample",
    "Text",
    "Train",
    "Tsr",
    "Upscale",
    "default",
    "differences",
    "frame_rate",
    "items",
    "leaves",
    "level_channels",
    "level_layers",
    "load",
    "override",
    "read",
    "resolve",
    "same_text",
    "span",
    "start_from",
    "write",
]
