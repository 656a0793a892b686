"""What a task of `stunet sample` is: what it is asked, what it makes, and the arguments of all."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stunet.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from stunet import configs

OnStep = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What every task is asked.

    Attributes:
        workdir: of the training run.
        prompts: one for each clip to make; empty where none was given.
        seed: of the noise.
        sample: settings of `configs.Sample` that replace the run's own.
        on_step: to be called with the steps done and their number.
        own: the arguments that only this task has.
    """

    workdir: pathlib.Path
    prompts: Sequence[str]
    seed: int
    sample: Mapping[str, object]
    on_step: OnStep
    own: argparse.Namespace

    @property
    def options(self) -> dict[str, object]:
        """Of whatever samples."""
        return {"seed": self.seed, "on_step": self.on_step}


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What a task made.

    Attributes:
        clips: `[n, t, h, w, c]` in -1..1, one for each prompt, or for each of `captions`.
        config: of the run that they come from, with the settings that they were sampled at.
        checkpoint: updates of the weights.
        settings: of the task alone, for the record: JSON values, and paths.
        labels: what tells the files' names from another task's, or from those of other inputs.
        captions: one for each clip, where prompts are not; empty: the prompts.
        columns: clips in a row of the sheet; None: as many as make it about 3:2.
    """

    clips: "np.ndarray"
    config: "configs.Config"
    checkpoint: int
    settings: Mapping[str, object] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    captions: Sequence[str] = ()
    columns: int | None = None


class Task(NamedTuple):
    """A task of `stunet sample`.

    Attributes:
        summary: for the help.
        add_arguments: adds what only this task has to its parser.
        sample: does it.
        prompted: whether it cannot do without a prompt.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    sample: Callable[[Request], Sampled]
    prompted: bool = False


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The arguments of whatever samples."""
    parser.add_argument("--seed", type=seed, default=0, help="of the noise")
    add_settings(parser)


def add_settings(parser: argparse._ActionsContainer) -> None:
    """The arguments that `sampling_settings` reads."""
    parser.add_argument("--steps", type=at_least_one, help="calls of the network (run's own)")
    parser.add_argument("--sampler", help="ddim, ancestral or dpmpp_2m (run's own)")
    parser.add_argument(
        "--guidance", dest="guidance_scale", type=float, help="guidance scale (run's own)"
    )


def sampling_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings of `configs.Sample` that the command line gives."""
    given = ("sampler", "steps", "guidance_scale")
    return {k: v for k in given if (v := getattr(arguments, k)) is not None}


def check_seed(value: int) -> None:
    """Checks that a seed is one that the config's `seed` could be.

    Raises:
        UserError: it is out of range.
    """
    if not 0 <= value < 2**31:
        raise UserError(f"the seed is {value}; it must be 0 to {2**31 - 1}")


def seed(text: str) -> int:
    """A type of argparse's."""
    value = int(text)
    check_seed(value)
    return value


def at_least_one(text: str) -> int:
    """A type of argparse's."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def sampling_bar() -> OnStep:
    """A progress bar, which appears with the first step."""
    from tqdm import tqdm

    bar = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(desc="sampling", unit="step", total=total, dynamic_ncols=True)
        # Not by one: a command that goes on begins with what is done.
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return show


def measuring_bar() -> Callable[[str, int, int], None]:
    """A progress bar for each set of clips that takes more than moments."""
    from tqdm import tqdm

    bars = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            options = dict(unit="clip", total=total, dynamic_ncols=True, delay=2)
            bars[what] = tqdm(desc=f"measuring {what} clips", **options)
        bars[what].update(done - bars[what].n)
        if done == total:
            bars[what].close()

    return show
