"""Defines what a tracker is, and what it knows of the run that it shows."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Says which run a tracker shows.

    Attributes:
        workdir: working directory of the run.
        id: name of the run that no other run has, and that stays when the run continues.
        config: value of every key of the config, by its full name.
        commit: commit of stunet's source, if it is known.
    """

    workdir: pathlib.Path
    id: str
    config: Mapping[str, Any]
    commit: str | None

    @property
    def name(self) -> str:
        """Returns the name that people see."""
        return self.workdir.name


class Tracker(Protocol):
    """Shows one run. All calls come from one thread, and steps never fall."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Shows metrics after update `step`."""

    def picture(self, step: int, name: str, path: str) -> None:
        """Shows a PNG or GIF file after update `step`; a GIF holds clips and should play."""

    def close(self) -> None:
        """Ends the tracking, at the end of the run or of this part of it."""
