"""A run that trains within seconds, and a comparison with the run that nothing disturbed."""

import contextlib
import json
import pathlib
import time

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp
from processes import Ended, Process, Server

STEPS = 8

EXPERIMENT = f"""
from stunet import configs


def get_config():
    config = configs.default()
    config.model.channels = 8
    config.model.channel_multipliers = (1,)
    config.model.attention_levels = (False,)
    config.model.temporal_factors = (1,)
    config.model.layers_per_level = 1
    config.model.groups = 4
    config.model.head_channels = 8
    config.model.text_features = 0
    config.text.dim = 8
    config.text.max_length = 8
    config.data.channels = 1
    config.data.frames = 4
    config.data.height = config.data.width = 8
    config.train.steps = {STEPS}
    config.train.batch_size = 4
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 2
    config.checkpoint.every = 2
    config.log.every = 1
    config.log.validate_every = 0
    config.log.sample_every = 0
    config.sample.steps = 2
    config.sample.num = 1
    return config
"""

# Metrics that say how fast an update was, and not what it computed.
_OF_TIME = ("second", "wait", "goodput", "mfu")


def words(workdir: pathlib.Path, *more: str) -> tuple[str, ...]:
    """Returns the arguments of `stunet` that train in `workdir`."""
    file = workdir.parent / "experiment.py"
    if not file.exists():
        file.write_text(EXPERIMENT)
    return ("train", f"--config={file}", f"--workdir={workdir}", *more)


def result(workdir: pathlib.Path, checkpoints: pathlib.Path | None = None) -> dict[str, np.ndarray]:
    """Reads what a finished run has computed.

    Args:
        workdir: the work directory.
        checkpoints: directory of its checkpoints, if it is elsewhere.

    Returns:
        Every array of the last checkpoint by its path; the metrics of each line of metrics.jsonl by
        the number of the line and the metric's name.
    """
    checkpoints = checkpoints or workdir / "checkpoints"
    tree = ocp.load_checkpointables(checkpoints / str(STEPS))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    for number, line in enumerate((workdir / "metrics.jsonl").read_text().splitlines()):
        for name, value in json.loads(line).items():
            if not any(word in name for word in _OF_TIME):
                found[f"line {number}, {name}"] = np.asarray(value)
    return found


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Returns the names of what only one result has, or what has other bits in the other."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one
        or name not in other
        or one[name].dtype != other[name].dtype
        or one[name].tobytes() != other[name].tobytes()
    )


def finish(server: Server, workdir: pathlib.Path, **how) -> Ended:
    """Runs the training to its end."""
    return server.run(*words(workdir), **how)


def wait_for_change(process: Process, workdir: pathlib.Path, pattern: str) -> None:
    """Waits until a file of the work directory appears or grows, or the process ends.

    Args:
        process: the process that trains there.
        workdir: the work directory.
        pattern: glob of the files, relative to `workdir`.
    """

    def sizes() -> dict[pathlib.Path, int]:
        found = {}
        for path in workdir.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # It is renamed once it is complete.
                found[path] = path.stat().st_size
        return found

    before = sizes()
    while sizes().items() <= before.items() and not process.has_ended():
        time.sleep(0.0005)
