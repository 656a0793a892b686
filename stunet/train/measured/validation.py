"""Validates while training: measures the loss on held-out clips."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stunet.data import pipeline
from stunet.data.sources import Dataset, make_source, representatives
from stunet.errors import UserError
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import Batch, Objective
from stunet.train.step import Metrics


def make_validation(
    objective: Objective,
    dataset: Dataset,
    mesh: jax.sharding.Mesh,
    *,
    clips: int,
    batch_size: int,
    seed: int,
    num_threads: int,
) -> Callable[[Any], dict[str, float]]:
    """Returns `validate(params, teacher) -> {"val/loss": ..., ...}`.

    `teacher` has the parameters of the teacher's network if the network is distilled; None if not.

    Args:
        objective: the loss.
        dataset: where held-out clips come from.
        mesh: the devices.
        clips: largest number of held-out clips to use. It is rounded down to whole batches, but not
            below one batch.
        batch_size: clips in a batch. The batch size of training is a safe choice: it fits in memory
            and divides over the devices.
        seed: seed of the noise.
        num_threads: threads that read ahead.

    Raises:
        UserError: there are fewer held-out clips than one batch.
    """
    held_out = make_source(dataset, "val")
    count = max(1, min(clips, len(held_out)) // batch_size)
    if count * batch_size > len(held_out):
        raise UserError(
            f"held-out clips: {len(held_out)}, fewer than one batch of {batch_size}; set "
            "log.validate_every to 0, or hold out more with --val-fraction of `stunet prepare`, or "
            "in shorter stretches with --val-seconds"
        )
    source = representatives(held_out, count * batch_size, dataset)
    step = jax.jit(make_validation_step(objective, seed))

    def validate(params: Any, teacher: Any = None) -> dict[str, float]:
        batches = pipeline.eval_batches(
            source,
            batch_size,
            count,
            rows=hosts.batch_rows(meshes.batch_sharding(mesh), batch_size),
            num_threads=num_threads,
        )
        losses = [
            jax.device_get(step(params, meshes.shard_batch(b, mesh), teacher)) for b in batches
        ]
        return {f"val/{k}": float(np.mean([x[k] for x in losses])) for k in losses[0]}

    return validate


def make_validation_step(objective: Objective, seed: int) -> Callable[..., Metrics]:
    """Returns `validate(params, batch, teacher=None)`, with the results of `Objective.measure`.

    Everything random depends on the seed alone.
    """

    def validate(params: Any, batch: Batch, teacher: Any = None) -> Metrics:
        return objective.measure(params, jax.random.key(seed), batch, teacher)

    return validate
