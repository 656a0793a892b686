"""Checkpoints of a run: checkpoint N is the state after exactly N updates, with its place in the
data.

Layout of `checkpoints/N/`, written by Orbax: `train` (step, parameters, optimiser); `ema` (the
averaged parameters) and, if there are any, `frozen` (those that are not trained), which are loaded
without it to sample; `data` (the pipeline's position).
"""

import contextlib
import pathlib
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

from orbax.checkpoint import v1 as ocp

# What `serialization_status_callback` is to return; Orbax has no public name for it.
from orbax.checkpoint.experimental.v1._src.serialization.types import TransferPriority

from stunet.errors import UserError
from stunet.train.state import TrainState

DataState = dict[str, int]

# Writers that take longer are stuck; what they leave is removed when the run is continued.
_WRITERS_SECONDS = 10

# The codes of TensorStore's that tell of the files, and not of the system that they lie in.
_OF_FILES = ("DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")


class Checkpoints:
    """The checkpoints of one working directory. Saving goes on in the background.

    Args:
        workdir: of the run.
        keep: how many of the latest to keep when saving; None to read only.
        at_once: bytes of each tree of arrays (or one array that is larger) that are packed for the
            disk at a time: what saving takes beside the arrays, which must then stay until `wait`
            returns. None: all are copied before `save` returns, and packed before any is written.
    """

    def __init__(self, workdir: pathlib.Path, keep: int | None = None, at_once: int | None = None):
        self.directory = (workdir / "checkpoints").absolute()
        self._writes = keep is not None
        self._late = _late_failures_unsaid()
        self._orbax = ocp.training.Checkpointer(
            self.directory,
            context=None if at_once is None else _in_turn(at_once),
            # The train loop decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            # What a killed run left half-written; a reader must not touch a running one's.
            cleanup_tmp_directories=self._writes,
        )

    def __enter__(self) -> "Checkpoints":
        self._late.__enter__()
        return self

    def __exit__(self, *_) -> None:
        try:
            self._orbax.close()
        finally:
            # Whatever is half-written by now stays so, and would keep a full disk full.
            if self._writes:
                _wait_for_writers()
                for partial in self.directory.glob("*.orbax-checkpoint-tmp"):
                    shutil.rmtree(partial, ignore_errors=True)
            self._late.__exit__(None, None, None)

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint, if there is one."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, state: TrainState, data: DataState) -> None:
        """Starts to save checkpoint `state.step`; the arrays may be donated as soon as this
        returns, unless they are written in turn (`at_once`).

        Raises:
            whatever writing raised, now or in the background since the last call.
        """
        step = int(state.step)
        if step == self.latest():
            return
        self._orbax.save_checkpointables_async(step, items(state) | {"data": data}, force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
            whatever writing it raised.
        """
        self._orbax.wait()

    def restore(self, abstract: TrainState) -> tuple[TrainState, DataState]:
        """The newest checkpoint, laid out as `abstract` says, whatever mesh it was saved on.

        Raises:
            UserError: the checkpoint cannot be read, is damaged or is that of another network.
        """
        loaded = self._load(items(abstract) | {"data": None})
        data = loaded.pop("data")
        return abstract.replace(**loaded.pop("train"), **({"frozen": {}} | loaded)), data

    def restore_ema_params(self, abstract: TrainState) -> Any:
        """The whole network's parameters, averaged where they are trained, and with its adapters
        merged, of the newest checkpoint; nothing else is read."""
        loaded = self._load({k: v for k, v in items(abstract).items() if k != "train"})
        return abstract.replace(**({"frozen": {}} | loaded)).ema_params

    def _load(self, abstract: dict[str, Any]) -> dict[str, Any]:
        step = self.latest()
        if step is None:
            raise UserError(f"no checkpoint in {self.directory}; train first")
        try:
            return self._orbax.load_checkpointables(step, abstract)
        # Orbax passes on whatever its readers raise: there is no narrower type.
        except Exception as error:
            cause = error
            while cause.__cause__:  # Orbax's own say that the handler is incompatible, always.
                cause = cause.__cause__
            # It may go on for pages, with every weight's shape or with TensorStore's settings.
            reason = (str(cause) or repr(cause)).split(" [tensorstore_spec=")[0]
            reason = textwrap.shorten(reason, 400, placeholder=" ...")
            advice = (
                "it is damaged or of another network: remove that directory to go on from the "
                "checkpoint before it"
                if _tells_of_files(cause)
                else "nothing is known to be wrong with it: try again, or with more memory"
            )
            raise UserError(
                f"cannot read checkpoint {self.directory / str(step)} ({reason}); {advice}"
            ) from error


def _tells_of_files(error: BaseException) -> bool:
    """Whether what reading raised says that files lack something or hold something else: not so of
    memory that runs out, or of a disk or bucket that does not answer."""
    if isinstance(error, (KeyError, FileNotFoundError)):
        return True
    # Orbax's own, of another structure or shape, and those of JSON begin with no code.
    code = re.match(r"([A-Z_]+): ", str(error))
    return isinstance(error, ValueError) and (code is None or code[1] in _OF_FILES)


class _InTurn:
    """Has Orbax write the arrays of a tree batch by batch, each in a transaction of its own: what a
    transaction writes stays in memory until its end."""

    def key_priority(self, _) -> TransferPriority:
        return TransferPriority.ASYNCHRONOUS_DEPRIORITIZED

    def on_transfer_end(self, _) -> None:
        pass

    def on_write_end(self, _) -> None:
        pass


def _in_turn(at_once: int) -> ocp.Context:
    context = ocp.Context()
    context.memory.transfer_concurrent_bytes = at_once
    context.memory.serialization_status_callback = _InTurn()
    return context


@contextlib.contextmanager
def _late_failures_unsaid() -> Iterator[None]:
    """Of writes that fail together the first is raised, and ends Orbax's event loop; within, those
    that come too late for it print no traceback."""
    say = sys.unraisablehook

    def say_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            say(unraisable)

    sys.unraisablehook = say_others
    try:
        yield
    finally:
        sys.unraisablehook = say


def _wait_for_writers() -> None:
    """What one of Orbax's threads raised comes from `close` while others still write, and they
    would put back directories that are removed meanwhile."""
    deadline = time.monotonic() + _WRITERS_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            # Not their own, which raises again.
            threading.Thread.join(thread, max(0, deadline - time.monotonic()))


def items(state: TrainState) -> dict[str, Any]:
    """What is stored under its own name, but for the data's position."""
    train = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    frozen = {"frozen": state.frozen} if state.frozen else {}
    return {"train": train, "ema": state.ema} | frozen
