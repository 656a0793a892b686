"""Shows a run in MLflow.

Its own environment variables say where: MLFLOW_TRACKING_URI, and MLFLOW_EXPERIMENT_NAME (here
"stunet" by default).
"""

import os
import re
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from stunet.train.measured.trackers.tracker import RunInfo

# A batch of parameters holds at most as many.
_PARAMETERS = 100


class MLflow:
    """See `trackers.tracker.Tracker`."""

    def __init__(self, run: RunInfo):
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "stunet")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        # A run that continues is found by its tag.
        earlier = self._client.search_runs([experiment], f"tags.stunet_id = '{run.id}'")
        if earlier:
            self._id = earlier[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        tags = {"stunet_id": run.id, "commit": run.commit or "unknown"}
        made = self._client.create_run(experiment, tags=tags, run_name=run.name)
        self._id = made.info.run_id
        parameters = [Param(key, str(value)) for key, value in run.config.items()]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._id, params=parameters[first : first + _PARAMETERS])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, step: int, name: str, path: str) -> None:
        self._client.log_artifact(self._id, path, name)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _allowed(name: str) -> str:
    """Returns the name without characters that MLflow refuses, such as the "=" of "loss_t=0.5"."""
    return re.sub(r"[^\w\-. /]", "_", name)
