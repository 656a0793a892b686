"""Keys of what a run reports and measures while it trains."""

import dataclasses

from stunet import extensions
from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Log:
    """Sets what a run measures and shows while it trains."""

    every: int = field(50, "Number of updates from one line of metrics to the next.", least=1)
    norms_by_layer: bool = field(
        False,
        "True adds the norms of the gradient and of the update of each layer to the metrics, as "
        "grad_norm/LAYER (before clipping) and update_norm/LAYER.",
    )
    validate_every: int = field(
        1000, "Number of updates from one validation to the next. 0: no validation.", least=0
    )
    validate_clips: int = field(
        64,
        "Number of held-out clips in each validation, rounded down to whole batches of "
        "`train.batch_size`; at least one batch is used.",
        least=1,
    )
    validate_times: tuple[float, ...] = field(
        (0.1, 0.3, 0.5, 0.7, 0.9),
        "Noise times, from 0 (clean) to 1 (noise), at which the validation loss is measured.",
    )
    sample_every: int = field(
        1000,
        "Number of updates from one set of sample clips to the next. 0: no sample clips while "
        "training.",
        least=0,
    )
    trackers: tuple[str, ...] = field(
        ("tensorboard",),
        "Programs that show the run while it trains, beside metrics.jsonl: any of 'tensorboard' "
        "(files in the working directory), 'wandb' (Weights & Biases), 'mlflow' and 'trackio'. "
        "(): none.",
        choices=("tensorboard", "wandb", "mlflow", "trackio"),
        own=extensions.Tracker,
    )


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """The metrics of `stunet evaluate` that a run measures while it trains (`stunet.evaluate`)."""

    every: int = field(
        0,
        "Number of updates from one evaluation to the next. Each samples clips with the averaged "
        "weights and the sampling settings of the run, such as `sample.steps`, but without "
        "autoguidance. The state after the last update is evaluated too. 0: no evaluation.",
        least=0,
    )
    metrics: tuple[str, ...] = field(
        ("coherence", "pixels", "flow"),
        "Groups of metrics to measure, any of 'captions', 'coherence', 'pixels', 'flow' and "
        "'fvd', as for `stunet evaluate --metrics`. Each metric NAME is in the metrics as "
        "eval/NAME.",
        choices=("captions", "coherence", "pixels", "flow", "fvd"),
        own=extensions.Metric,
    )
    num: int = field(
        64,
        "Number of clips that each evaluation samples, `train.batch_size` at a time, and of real "
        "clips to compare them with.",
        least=1,
    )
