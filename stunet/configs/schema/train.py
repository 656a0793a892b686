"""Keys of the updates, the mesh, the checkpoints and the profile."""

import dataclasses

from stunet import extensions
from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Train:
    """The updates: their number, batch size, optimiser and first weights (`stunet.train`)."""

    init_from: str = field(
        "",
        "Weights to begin with: the working directory of another run, whose averaged weights are "
        "taken, or a .safetensors file of `stunet export`. A network with more inputs than that "
        "of the other run ignores its additional inputs at first. A video network may begin with "
        "a text-to-image network (`model.temporal` False); its temporal layers are then fresh. "
        "Empty: random weights.",
        path=str,
    )
    steps: int = field(10_000, "Number of updates in the whole run.", least=1)
    batch_size: int = field(
        16,
        "Number of clips in each update, over all devices. An update on smaller clips than those "
        "of the main source has a multiple of this number, so that it costs about as much, unless "
        "`data.clips_per_update` says how many.",
        least=1,
    )
    accumulate: int = field(
        1,
        "Number of equal parts that a batch is computed in, one after the other, to save memory. "
        "The update stays the same.",
        least=1,
    )
    optimizer: str = field(
        "adamw",
        "Method that turns gradients into updates. 'adamw': two moments of each parameter. "
        "'adamw_8bit': the same, with moments of kernels in 8 bits. "
        "'adafactor': a factored second moment, and a first moment in bfloat16, which take the "
        "least memory. 'lion': the sign of one moment. 'muon': one moment of each kernel, with its "
        "singular values set to about 1; other parameters have AdamW. 'schedule_free': AdamW whose "
        "averaged weights replace a falling learning rate and the EMA.",
        choices=("adamw", "adamw_8bit", "adafactor", "lion", "muon", "schedule_free"),
        own=extensions.Optimizer,
    )
    learning_rate: float = field(
        1e-4,
        "Highest learning rate. The rate rises to it linearly over `train.warmup_steps` updates, "
        "then follows `train.schedule`.",
        above=0,
    )
    schedule: str = field(
        "cosine",
        "Learning rate after the warm-up. 'cosine': falls along a cosine until the last update. "
        "'constant': stays as it is. 'wsd' (warm-up, stable, decay): stays as it is, then falls "
        "steeply from update `train.decay_begin` to the last update. 'inverse_sqrt': falls as one "
        "over the square root of the update's number, from update `train.decay_begin` on, "
        "without an end.",
        choices=("cosine", "constant", "wsd", "inverse_sqrt"),
        own=extensions.LearningRate,
    )
    decay_begin: int = field(
        0,
        "Update at which the learning rate begins to fall, for the schedules 'wsd' and "
        "'inverse_sqrt'. 0: 'wsd' begins after 80% of the updates, and 'inverse_sqrt' at the end "
        "of the warm-up.",
        least=0,
    )
    warmup_steps: int = field(100, "Number of updates over which the learning rate rises.", least=0)
    final_learning_rate: float = field(
        0.0,
        "Learning rate at the last update, as a share, from 0 to 1, of `train.learning_rate`, for "
        "the schedules 'cosine' and 'wsd'. The others do not fall to a final rate.",
        least=0,
        most=1,
    )
    temporal_rate: float = field(
        1.0,
        "Learning rate of the temporal layers, which inflation adds, as a multiple of "
        "`train.learning_rate`.",
        above=0,
    )
    spatial_rate: float = field(
        1.0,
        "Learning rate of the layers that are neither temporal nor take the caption, as a multiple "
        "of `train.learning_rate`.",
        above=0,
    )
    text_rate: float = field(
        1.0,
        "Learning rate of the layers that take the caption's token states, as a multiple of "
        "`train.learning_rate`: the projection and the pooling of the states, and their keys and "
        "values in attention.",
        above=0,
    )
    # At 1, the bias correction of the first update would divide 0 by 0.
    beta1: float = field(
        0.9,
        "Decay rate of the running mean of the gradient. For 'schedule_free': share of the average "
        "in the weights at which gradients are taken. 'muon' has it for parameters of AdamW alone, "
        "and the momentum 0.95 for kernels. 0 makes 'adafactor' store no such mean.",
        least=0,
        below=1,
    )
    beta2: float = field(
        0.99,
        "Decay rate of the running mean of the squared gradient. For 'lion': decay rate of its one "
        "moment. For 'adafactor': the highest decay rate, which it approaches. 'muon' has it for "
        "parameters of AdamW alone.",
        least=0,
        below=1,
    )
    weight_decay: float = field(
        0.0,
        "Weight decay, times the learning rate, of matrices and convolution kernels, not of biases "
        "and norms.",
        least=0,
    )
    clip_norm: float = field(
        1.0,
        "Largest norm of the gradient of all parameters together. Larger gradients are scaled "
        "down to it.",
        above=0,
    )
    ema_decay: float = field(
        0.999,
        "Decay per update of the exponential moving average (EMA) of the weights. Sampling and "
        "validation use the averaged weights. Early in a run the decay is lower. The optimiser "
        "'schedule_free' averages the weights itself, and has no EMA.",
        least=0,
        most=1,
    )
    ema_snapshots: int = field(
        0,
        "Number of updates from one snapshot of two power-function averages of the weights to the "
        "next. From the snapshots, `stunet ema` computes an average of any length after training. "
        "The two averages take twice the memory of the trained weights. 0: no snapshots.",
        least=0,
    )
    on_nonfinite: str = field(
        "stop",
        "What happens when the loss or the gradient of an update is not finite. 'stop': the run "
        "ends, and what it saved before is good. 'skip': weights, their average and moments stay "
        "as they were, and the run goes on with the next batch. Each skipped update counts as an "
        "update. The metric skipped_updates counts them.",
        choices=("stop", "skip"),
    )
    skip_spikes: float = field(
        0.0,
        "An update is skipped if the norm of its gradient is more than this many times the running "
        "mean of that norm. The mean is over about 100 updates that were not skipped. The first "
        "100 updates of a run are never skipped for their norm. 0: no update is skipped for its "
        "norm.",
        least=0,
    )
    skip_limit: int = field(
        10,
        "Largest number of updates in a row that may be skipped. One more ends the run.",
        least=0,
    )
    watchdog_seconds: float = field(
        600.0,
        "Limit in seconds for one update, including the wait for its batch. Runs with slow updates "
        "have a larger limit: 20 times their longest update so far. Setting up, compiling, saving, "
        "validating and sampling have ten times the limit of an update. After a stop signal, each "
        "limit is divided by ten. If a limit is passed, the run prints what each thread is doing "
        "and ends with status 75. 0: no limits.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The mesh of devices: its size along each axis (`stunet.parallel`).

    The product of all sizes is the number of devices. One size may be -1. It is then
    computed from the number of devices and the other sizes.
    """

    slice: int = field(
        1,
        "Number of groups of devices, such as TPU slices, that are connected to each other only by "
        "the data-centre network. Each group computes a part of the batch. -1: as many as the "
        "other axes leave.",
        least=-1,
    )
    data: int = field(
        -1,
        "Number of groups of devices among which the batch is split. Each group holds one full "
        "copy of the weights. -1: as many as the other axes leave.",
        least=-1,
    )
    fsdp: int = field(
        1,
        "Number of devices, within each group of `mesh.data`, among which the group's part of the "
        "batch, the stored weights and the optimiser state are split (fully sharded data "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    context: int = field(
        1,
        "Number of devices among which each clip is split along `mesh.context_axis` (context "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    tensor: int = field(
        1,
        "Number of devices among which the features of weights and activations are split (tensor "
        "parallelism). -1: as many as the other axes leave.",
        least=-1,
    )
    context_axis: str = field(
        "rows",
        "Axis of a clip that `mesh.context` splits: its rows of pixels or its frames.",
        choices=("rows", "frames"),
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The checkpoints: how often the state is saved, and how many are kept."""

    every: int = field(
        1000,
        "Number of updates from one checkpoint to the next. The state after the last update "
        "is saved too.",
        least=1,
    )
    every_minutes: float = field(
        0.0,
        "Longest time without a checkpoint, in minutes. When it is over, one is saved after the "
        "update in progress. 0: `checkpoint.every` alone decides.",
        least=0,
    )
    keep: int = field(
        3,
        "Number of the latest checkpoints to keep. Older ones are removed, except for those that "
        "`checkpoint.keep_every` and `checkpoint.keep_best` keep.",
        least=1,
    )
    keep_every: int = field(
        0,
        "Checkpoints are kept for ever if their number of updates is a multiple of this, which "
        "must be a multiple of `checkpoint.every`. 0: none is kept for ever.",
        least=0,
    )
    keep_best: str = field(
        "",
        "Metric that decides which checkpoint is the best: 'loss', 'val/loss', one of "
        "'val/loss_t=...', or one of `evaluate.metrics`, such as 'eval/coherent'. The best one is "
        "kept, however old it is, and `stunet sample --checkpoint best` samples from it. "
        "`checkpoint.every` must be a multiple of `log.validate_every` or `evaluate.every`, "
        "whichever measures the metric, so that there is a value for each checkpoint. '': no "
        "checkpoint is kept for its metrics.",
    )
    best_is: str = field(
        "lowest",
        "Value of `checkpoint.keep_best` that is the best: 'lowest', as for a loss or a distance, "
        "or 'highest', as for a share of clips that are right.",
        choices=("lowest", "highest"),
    )


@dataclasses.dataclass(frozen=True)
class Profile:
    """The updates that are traced for the profiler xprof (`stunet.train.measured.profile`)."""

    start: int = field(
        10,
        "Number of the first update to trace, counted from 1 since the run first began.",
        least=1,
    )
    steps: int = field(0, "Number of updates to trace. 0: no trace.", least=0)
