"""How a run is trained: its devices, learning rate, checkpoints and measurements."""

import dataclasses

from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.schema import Config


def mesh(config: Config) -> Mistakes:
    sizes = dataclasses.asdict(config.mesh)
    del sizes["context_axis"]
    if 0 in sizes.values() or [*sizes.values()].count(-1) > 1:
        shown = ", ".join(f"mesh.{axis} {size}" for axis, size in sizes.items())
        yield f"the mesh has {shown}; each size must be positive, and at most one of them -1"


def batch(config: Config) -> Mistakes:
    train = config.train
    yield from divides(train.batch_size, "train.batch_size", train.accumulate, "train.accumulate")


def learning_rate(config: Config) -> Mistakes:
    """Checks that the learning rate falls after the warm-up and before the end of the run."""
    train = config.train
    begin, name = train.decay_begin, f"train.decay_begin is {train.decay_begin}"
    if begin and train.schedule in ("cosine", "constant"):
        yield (
            f"{name} and train.schedule {train.schedule!r}, which does not use it; choose the "
            "schedule 'wsd' or 'inverse_sqrt', or set train.decay_begin to 0"
        )
    elif begin and not train.warmup_steps <= begin < train.steps:
        yield (
            f"{name}; the learning rate begins to fall after the warm-up of {train.warmup_steps} "
            f"updates and before the last of {train.steps}"
        )
    if train.schedule == "inverse_sqrt" and not (begin or train.warmup_steps):
        yield (
            "train.schedule is 'inverse_sqrt', and train.decay_begin and train.warmup_steps are 0; "
            "set train.decay_begin to the update from which the learning rate falls"
        )


def schedule_free(config: Config) -> Mistakes:
    """Checks that schedule-free AdamW has a weight to average and a learning rate that stays."""
    train = config.train
    if train.optimizer != "schedule_free":
        return
    if train.schedule != "constant":
        yield (
            f"train.optimizer is 'schedule_free' and train.schedule {train.schedule!r}; its "
            "averaged weights replace a falling learning rate: set train.schedule to 'constant'"
        )
    if not train.beta1:
        yield (
            "train.optimizer is 'schedule_free' and train.beta1 0, which leaves no average; set "
            "train.beta1 above 0, such as 0.9"
        )


def checkpoints(config: Config) -> Mistakes:
    """Checks the keys that say which checkpoints are kept.

    A checkpoint to keep must be saved. If the best checkpoint is kept, its loss must be measured.
    """
    checkpoint, log = config.checkpoint, config.log
    if checkpoint.keep_every:
        yield from divides(
            checkpoint.keep_every, "checkpoint.keep_every", checkpoint.every, "checkpoint.every"
        )
    best, at_times = checkpoint.keep_best, [f"val/loss_t={time:g}" for time in log.validate_times]
    # Which metrics an evaluation has depends on the clips: `stunet.evaluate.in_training` checks it.
    if best not in ("", "loss", "val/loss", *at_times) and not best.startswith("eval/"):
        yield (
            f"checkpoint.keep_best is {best!r}; choose one of loss, val/loss, "
            f"{', '.join(at_times)}, or eval/ with a metric of evaluate.metrics, such as "
            "eval/coherent"
        )
    measured_every = {
        "val/": ("log.validate_every", log.validate_every),
        "eval/": ("evaluate.every", config.evaluate.every),
    }
    for prefix, (key, every) in measured_every.items():
        if best.startswith(prefix) and not every:
            yield f"checkpoint.keep_best is {best!r} and {key} is 0, so that nothing measures it"
        elif best.startswith(prefix):
            yield from divides(checkpoint.every, "checkpoint.every", every, key)


def validation(config: Config) -> Mistakes:
    times = config.log.validate_times
    if not all(0 <= time <= 1 for time in times):
        yield f"log.validate_times is {times}; noise times must be between 0 and 1"


def profile(config: Config) -> Mistakes:
    profile, steps = config.profile, config.train.steps
    last = profile.start + profile.steps - 1
    if profile.steps and last > steps:
        yield (
            f"profile asks for updates {profile.start} to {last}, and train.steps is {steps}; "
            "lower profile.start or profile.steps"
        )


def evaluation(config: Config) -> Mistakes:
    """Checks that the run can be evaluated: it makes clips, and metrics are named."""
    evaluate = config.evaluate
    if evaluate.every and config.upscale.factor > 1:
        yield (
            f"evaluate.every is {evaluate.every} and upscale.factor {config.upscale.factor}; a "
            "network that enlarges clips makes none from captions: set evaluate.every to 0"
        )
    if evaluate.every and not evaluate.metrics:
        yield (
            f"evaluate.every is {evaluate.every} and evaluate.metrics is empty; name metrics, such "
            "as coherence, or set evaluate.every to 0"
        )
