"""Defines what a config may contain, reads configs and checks them.

`schema` holds every key with its default and its range. An experiment, such as those in
`experiments/`, starts from `default()`, an ml_collections ConfigDict with the same keys. `load`
reads an experiment's file and applies the overrides of the command line. `resolve` checks the
result and returns the frozen `Config` that the rest of the program uses.
"""

from stunet.configs.combinations import check_data, check_data_path
from stunet.configs.experiments import start_from
from stunet.configs.reading import (
    Experiment,
    changes,
    default,
    differences,
    flatten,
    load,
    override,
    read,
    replace,
    reset,
    resolve,
    set_key,
    write,
)
from stunet.configs.schema import (
    MAY_CHANGE_BY_NAME,
    MAY_CHANGE_ON_RESUME,
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
    clip_span,
    fields,
    level_channels,
    level_layers,
)

__all__ = [
    "MAY_CHANGE_BY_NAME",
    "MAY_CHANGE_ON_RESUME",
    "Checkpoint",
    "Config",
    "Data",
    "Diffusion",
    "Experiment",
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
    "changes",
    "check_data",
    "check_data_path",
    "clip_span",
    "default",
    "differences",
    "fields",
    "flatten",
    "level_channels",
    "level_layers",
    "load",
    "override",
    "read",
    "replace",
    "reset",
    "resolve",
    "set_key",
    "start_from",
    "write",
]
