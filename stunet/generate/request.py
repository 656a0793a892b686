"""Defines what every task of `stunet sample` takes and returns."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stunet.errors import UserError
from stunet.progress import OnStep

if TYPE_CHECKING:
    import numpy as np

    from stunet.train.parts import Parts


@dataclasses.dataclass(frozen=True)
class Request:
    """The part of a request for clips that is the same for all tasks of `stunet sample`.

    Attributes:
        workdir: working directory of the training run.
        prompts: one prompt for each clip to make; an empty string where the user gave none.
        seed: seed of the noise.
        sample: settings that replace the run's own, as `stunet.train.parts.read_parts` takes them.
        load: function that loads a run: `text.load`, or one that keeps what it has loaded, such as
            `text.keeping_loader()`.
        on_step: called with the number of steps done, the number of all steps and the clips as they
            are estimated by then.
        command: the command line that asks for the clips; "" if there is none.
        name: name of the files, without suffix; "" makes one from the first prompt, the seed and
            the task.
    """

    workdir: pathlib.Path
    prompts: Sequence[str]
    seed: int
    sample: Mapping[str, object]
    load: Callable[..., Any]
    on_step: OnStep
    command: str = ""
    name: str = ""

    @property
    def loading(self) -> dict[str, object]:
        """Returns the keyword arguments that every function that loads a run takes."""
        return {"loader": self.load, **self.sample}

    @property
    def options(self) -> dict[str, object]:
        """Returns the keyword arguments that every sampling function takes."""
        return {"seed": self.seed, "on_step": self.on_step}


@dataclasses.dataclass(frozen=True)
class Sampled:
    """The clips that a task made, and what the files written from them need.

    Attributes:
        clips: `[n, t, h, w, c]` in -1..1, one for each of `captions`. If `captions` is empty, one
            for each prompt.
        parts: parts of the run that made the clips, with the settings used for sampling.
        checkpoint: number of updates that the weights have had.
        settings: settings that only this task has, as JSON values or paths, to write beside the
            clips.
        labels: words to add to the files' names, which tell tasks and their inputs apart.
        captions: one caption for each clip. Empty if the prompts are the captions.
        columns: clips in each row of the grid that shows all clips; None chooses a grid of about
            3:2.
        given: what the task was given beside prompts, to show it: one clip `[1, t, h, w, c]` in
            -1..1, or one for each clip; None if it was given nothing.
    """

    clips: "np.ndarray"
    parts: "Parts"
    checkpoint: int
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    captions: Sequence[str] = ()
    columns: int | None = None
    given: "np.ndarray | None" = None


def check_seed(value: int) -> None:
    """Checks that a seed is in the range of the config's `seed`.

    Raises:
        UserError: the seed is out of range.
    """
    if not 0 <= value < 2**31:
        raise UserError(f"the seed is {value}; it must be 0 to {2**31 - 1}")
