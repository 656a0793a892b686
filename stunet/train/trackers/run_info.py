"""Says which run a tracker shows."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any


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
