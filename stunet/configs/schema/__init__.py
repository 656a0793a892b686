"""The schema of configs: every key with its type, default, range and meaning, one file a topic.

The docs' page of keys is made from these files. Each `doc` is therefore a text that stands alone.
"""

import dataclasses
import typing
from collections.abc import Iterator

from stunet.configs.schema.autoencoder import Autoencoder
from stunet.configs.schema.conditioning import Masks, Tsr, Upscale
from stunet.configs.schema.data import (
    MAIN,
    OF_ALL_SOURCES,
    Data,
    Mix,
    all_sources,
    clip_span,
    shape,
)
from stunet.configs.schema.diffusion import BETA_SCHEDULES, Diffusion, Distil
from stunet.configs.schema.key import field
from stunet.configs.schema.log import Evaluate, Log
from stunet.configs.schema.model import Lora, Model, level_channels, level_layers
from stunet.configs.schema.sample import Sample
from stunet.configs.schema.text import Text
from stunet.configs.schema.train import Checkpoint, Mesh, Profile, Train

__all__ = [
    "BETA_SCHEDULES",
    "FINGERPRINTS",
    "KEEP_BETA1",
    "MAIN",
    "MAY_CHANGE_BY_NAME",
    "MAY_CHANGE_ON_RESUME",
    "OF_ALL_SOURCES",
    "RENAMED",
    "Autoencoder",
    "Checkpoint",
    "Config",
    "Data",
    "Diffusion",
    "Distil",
    "Evaluate",
    "Log",
    "Lora",
    "Masks",
    "Mesh",
    "Mix",
    "Model",
    "Profile",
    "Sample",
    "Text",
    "Train",
    "Tsr",
    "Upscale",
    "all_sources",
    "clip_span",
    "fields",
    "level_channels",
    "level_layers",
    "shape",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """The config of an experiment: its seed, which weights are frozen, and groups of keys."""

    seed: int = field(
        0,
        "Seed of everything random: first weights, order of clips, noise, generated data.",
        least=0,
        most=2**31 - 1,
    )
    freeze: str = field(
        "none",
        "Weights that are not trained. 'none': every weight is trained. 'spatial': the weights of "
        "the text-to-image network stay as they are, and the temporal layers are trained. The "
        "first convolution is trained too where it sees more than the noisy clip.",
        choices=("none", "spatial"),
    )
    model: Model = dataclasses.field(default_factory=Model)
    text: Text = dataclasses.field(default_factory=Text)
    autoencoder: Autoencoder = dataclasses.field(default_factory=Autoencoder)
    diffusion: Diffusion = dataclasses.field(default_factory=Diffusion)
    masks: Masks = dataclasses.field(default_factory=Masks)
    upscale: Upscale = dataclasses.field(default_factory=Upscale)
    tsr: Tsr = dataclasses.field(default_factory=Tsr)
    lora: Lora = dataclasses.field(default_factory=Lora)
    distil: Distil = dataclasses.field(default_factory=Distil)
    data: Data = dataclasses.field(default_factory=Data)
    train: Train = dataclasses.field(default_factory=Train)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    log: Log = dataclasses.field(default_factory=Log)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    profile: Profile = dataclasses.field(default_factory=Profile)
    sample: Sample = dataclasses.field(default_factory=Sample)


# Keys that training fills in when it begins, and the keys that say where the weights are.
FINGERPRINTS = {
    "text.fingerprint": "text.encoder",
    "autoencoder.fingerprint": "autoencoder.path",
}

# Keys and groups that may change when a run continues, since no update depends on them.
MAY_CHANGE_ON_RESUME = (
    *("mesh", "checkpoint", "log", "evaluate", "profile", "sample"),
    *("data.num_threads", "data.path", "train.watchdog_seconds"),
)

# Keys that a run may change when it continues if the user asks for each by name (`--change`), and
# what the change means. All take effect with the next update. A checkpoint holds all that they
# need.
MAY_CHANGE_BY_NAME = {
    "train.steps": "more updates extend the run, also a finished one",
    "train.batch_size": "the run goes on with the clips that no update has used yet",
    "train.accumulate": "the update stays the same",
    "train.learning_rate": "the schedule is as if the new value had held from the beginning",
    "train.warmup_steps": "the schedule is as if the new value had held from the beginning",
    "train.final_learning_rate": "the schedule is as if the new value had held from the beginning",
    "train.schedule": "the schedule is as if the new value had held from the beginning",
    "train.decay_begin": "the schedule is as if the new value had held from the beginning",
    "train.temporal_rate": "holds from the next update on",
    "train.spatial_rate": "holds from the next update on",
    "train.text_rate": "holds from the next update on",
    "train.beta1": "the moments are kept",
    "train.beta2": "the moments are kept",
    "train.weight_decay": "holds from the next update on",
    "train.clip_norm": "holds from the next update on",
    "train.ema_decay": "the averaged weights are kept",
    "train.on_nonfinite": "holds from the next update on",
    "train.skip_spikes": "the running mean of the gradient's norm is kept if train.on_nonfinite "
    "was 'skip' or this key was above 0; otherwise it starts empty",
    "train.skip_limit": "holds from the next update on",
}

# Optimisers with whose state another `train.beta1` does not fit.
KEEP_BETA1 = ("adafactor", "schedule_free")

# New name of each key that was renamed, so that old configs get a clear answer.
RENAMED = {"mesh.clip": "mesh.context", "mesh.clip_axis": "mesh.context_axis"}


def fields(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Yields every key, such as "train.steps", with its field.

    Args:
        cls: `Config`, or the class of a group of keys.
        prefix: what goes before each key, such as "train.".
    """
    types = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(types[f.name]):
            yield from fields(types[f.name], f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f
