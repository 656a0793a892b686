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

# The type that `serialization_status_callback` returns; Orbax has no public name for it.
from orbax.checkpoint.experimental.v1._src.serialization.types import TransferPriority

from stunet.errors import UserError
from stunet.train.state import TrainState

DataState = dict[str, int]

# Seconds to wait for writers. Those that take longer are stuck, and what they leave is removed when
# the run is continued.
_WRITERS_SECONDS = 10

# Codes of TensorStore for errors in the files themselves, not in the system that stores them.
_FILE_ERRORS = ("DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")


class Checkpoints:
    """The checkpoints of one working directory. Saving goes on in the background.

    Args:
        workdir: working directory of the run.
        keep: number of the latest checkpoints to keep when saving; None opens them for reading.
        at_once: bytes of each tree of arrays that are packed for the disk at a time, or one array
            if it is larger. Saving takes that much memory beside the arrays, which must stay until
            `wait` returns. None copies all arrays before `save` returns, and packs all before any
            is written.
    """

    def __init__(self, workdir: pathlib.Path, keep: int | None = None, at_once: int | None = None):
        self.directory = (workdir / "checkpoints").absolute()
        self._writes = keep is not None
        self._late = _silence_late_failures()
        self._orbax = ocp.training.Checkpointer(
            self.directory,
            context=None if at_once is None else _in_turn(at_once),
            # The train loop decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            # A killed run leaves unfinished checkpoints. A reader must not touch those of a run
            # that goes on.
            cleanup_tmp_directories=self._writes,
        )

    def __enter__(self) -> "Checkpoints":
        self._late.__enter__()
        return self

    def __exit__(self, *_) -> None:
        try:
            self._orbax.close()
        finally:
            # A checkpoint that is unfinished by now stays so, and would keep a full disk full.
            if self._writes:
                _wait_for_writers()
                for partial in self.directory.glob("*.orbax-checkpoint-tmp"):
                    shutil.rmtree(partial, ignore_errors=True)
            self._late.__exit__(None, None, None)

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint; None if there is none."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, state: TrainState, data: DataState) -> None:
        """Starts to save checkpoint `state.step`.

        The arrays may be donated as soon as this returns, unless they are written in turn
        (`at_once`).

        Args:
            state: the state.
            data: position in the data.

        Raises:
            Exception: whatever writing raised, now or in the background since the last call.
        """
        step = int(state.step)
        if step == self.latest():
            return
        self._orbax.save_checkpointables_async(step, items(state) | {"data": data}, force=True)

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
            Exception: whatever writing raised.
        """
        self._orbax.wait()

    def restore(self, abstract: TrainState) -> tuple[TrainState, DataState]:
        """Reads the newest checkpoint, whatever mesh it was saved on.

        Args:
            abstract: shapes and shardings of the state.

        Returns:
            The state, and the position in the data.

        Raises:
            UserError: the checkpoint cannot be read, is damaged or is that of another network.
        """
        asked = items(abstract) | {"data": None}
        if not (self.directory / str(self.latest()) / "guard").is_dir():
            asked.pop("guard", None)
        loaded = self._load(asked)
        data = loaded.pop("data")
        return abstract.replace(**loaded.pop("train"), **({"frozen": {}} | loaded)), data

    def restore_ema_params(self, abstract: TrainState) -> Any:
        """Reads all parameters of the network from the newest checkpoint, and nothing else.

        They are averaged where they are trained, and adapters are merged.

        Args:
            abstract: shapes and shardings of the state.

        Raises:
            UserError: as `restore`.
        """
        asked = {k: v for k, v in items(abstract).items() if k not in ("train", "guard")}
        loaded = self._load(asked)
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
            while (
                cause.__cause__
            ):  # Orbax's own message always says that the handler is incompatible.
                cause = cause.__cause__
            # The message may go on for pages, with the shape of every weight or with TensorStore's
            # settings.
            reason = (str(cause) or repr(cause)).split(" [tensorstore_spec=")[0]
            reason = textwrap.shorten(reason, 400, placeholder=" ...")
            advice = (
                "it is damaged or of another network: remove that directory to go on from the "
                "checkpoint before it"
                if _is_file_error(cause)
                else "nothing is known to be wrong with it: try again, or with more memory"
            )
            raise UserError(
                f"cannot read checkpoint {self.directory / str(step)} ({reason}); {advice}"
            ) from error


def _is_file_error(error: BaseException) -> bool:
    """Tells whether an error of reading means that files lack something or hold something else.

    Memory that runs out, or a disk or bucket that does not answer, is no such error.
    """
    if isinstance(error, (KeyError, FileNotFoundError)):
        return True
    # Orbax's errors of another structure or shape, and those of JSON, begin with no code.
    code = re.match(r"([A-Z_]+): ", str(error))
    return isinstance(error, ValueError) and (code is None or code[1] in _FILE_ERRORS)


class _InTurn:
    """Makes Orbax write the arrays of a tree batch by batch, each in a transaction of its own.

    What a transaction writes stays in memory until its end.
    """

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
def _silence_late_failures() -> Iterator[None]:
    """Context manager in which writes that fail too late print no traceback.

    Of writes that fail together, the first one is raised and ends Orbax's event loop. The others
    then find that loop closed.
    """
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


def _wait_for_writers() -> None:
    """Waits until Orbax's threads have ended.

    `close` raises what one thread raised while others still write, and these would put back
    directories that are removed meanwhile.
    """
    deadline = time.monotonic() + _WRITERS_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            # Orbax's own `join` would raise again.
            threading.Thread.join(thread, max(0, deadline - time.monotonic()))


def items(state: TrainState) -> dict[str, Any]:
    """Returns what is stored under its own name, except for the position in the data."""
    train = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    frozen = {"frozen": state.frozen} if state.frozen else {}
    guard = {"guard": state.guard} if state.guard else {}
    return {"train": train, "ema": state.ema} | frozen | guard
