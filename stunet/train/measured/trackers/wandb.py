"""Shows a run in Weights & Biases.

Its own environment variables say where: WANDB_PROJECT (here "stunet" by default), WANDB_ENTITY,
WANDB_MODE=offline.
"""

import os
from collections.abc import Mapping

import wandb

from stunet.train.measured.trackers.tracker import RunInfo


class WeightsAndBiases:
    """See `trackers.tracker.Tracker`."""

    def __init__(self, run: RunInfo):
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "stunet"),
            id=run.id,
            name=run.name,
            dir=run.workdir,
            config=dict(run.config) | {"commit": run.commit},
            resume="allow",
            settings=wandb.Settings(console="off"),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: str) -> None:
        shown = wandb.Video(path) if path.endswith(".gif") else wandb.Image(path)
        self._run.log({name: shown}, step=step)

    def close(self) -> None:
        self._run.finish()
