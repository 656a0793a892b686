"""Shows a run in Trackio.

Its own environment variables say where: TRACKIO_DIR for a folder of this machine, TRACKIO_SPACE_ID
for a Space of Hugging Face.
"""

from collections.abc import Mapping

import trackio

from stunet.train.measured.trackers.tracker import RunInfo


class Trackio:
    """See `trackers.tracker.Tracker`."""

    def __init__(self, run: RunInfo):
        self._run = trackio.init(
            project="stunet",
            name=f"{run.name}-{run.id}",
            config={key: _plain(value) for key, value in run.config.items()}
            | {"commit": run.commit},
            resume="allow",
            embed=False,
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: str) -> None:
        shown = trackio.Video(path) if path.endswith(".gif") else trackio.Image(path)
        self._run.log({name: shown}, step=step)

    def close(self) -> None:
        self._run.finish()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
