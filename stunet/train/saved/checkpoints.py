"""Saves and restores checkpoints. Checkpoint N is the state of a run after exactly N updates.

Orbax writes each part of a checkpoint to a directory in `checkpoints/N/`. `train` holds the step,
the parameters and the optimiser. `ema` holds the averaged parameters. `frozen` holds the
parameters that are not trained, if there are any. `power_ema` holds power-function averages, and
`teacher` the parameters before the first update, if the run keeps them. Sampling loads only `ema`
and `frozen`. `data` holds the position in the training data. `digests` holds a digest of each array
and of the position, as JSON. Every read compares arrays and position with these digests.
"""

import contextlib
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

# The type that `serialization_status_callback` returns; Orbax has no public name for it.
from orbax.checkpoint.experimental.v1._src.serialization.types import TransferPriority

from stunet.errors import UserError
from stunet.files import UNFINISHED_CHECKPOINT
from stunet.parallel import hosts
from stunet.paths import has_scheme
from stunet.stores import objects
from stunet.train.saved import checkpoint_files
from stunet.train.saved.checkpoint_files import DamagedCheckpoint, DataState
from stunet.train.saved.checkpoint_names import StepNames, check_path, place
from stunet.train.saved.gathering import Saves, gathers
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState

# Seconds to wait for threads that write. Threads that take longer are stuck. The files that they
# leave are removed when the run is continued.
_WRITERS_SECONDS = 10


class Restored(NamedTuple):
    """Holds what a run continues from: the content of a checkpoint.

    Attributes:
        state: the state of training.
        data: position in the training data.
        notes: sentences for the user about checkpoints that are damaged or have no digests.
    """

    state: TrainState
    data: DataState
    notes: tuple[str, ...]


class Checkpoints:
    """Saves checkpoints to one working directory, in the background, and restores them.

    Args:
        workdir: working directory of the run.
        keep: says which checkpoints stay after a new one is saved. None opens the directory only
            for reading.
        at_once: approximate number of bytes that saving serialises in one batch. Saving takes this
            much extra memory. An array with more bytes is a batch of its own. The arrays must not
            be donated before `wait` returns. With None, `save` copies all arrays before
            it returns, and all arrays are serialised before the first array is written.

    Raises:
        UserError: the path of `workdir` has a character with which checkpoints could be written but
            not read.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        keep: Retention | None = None,
        at_once: int | None = None,
    ):
        check_path(workdir)
        self.directory = place(workdir)
        self._preservation = _Preservation(keep) if keep else None
        self._saves = Saves(self.directory, keep) if keep and gathers(workdir) else None
        self._at_once, self._writes = at_once, keep is not None
        silence_late_failures()
        self._saving: Any = None
        self._orbax = self._open()

    def _open(self) -> ocp.training.Checkpointer:
        return ocp.training.Checkpointer(
            self.directory,
            context=_saving_context(self._at_once),
            # The train loop decides when to save.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=self._preservation,
            step_name_format=StepNames(),
            # A killed run leaves unfinished checkpoints. A reader must not touch those of a run
            # that goes on.
            cleanup_tmp_directories=self._writes,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        try:
            if self._saves:
                self._saves.wait()
            with self._refusals_explained():
                self._orbax.close()
        finally:
            self._release()
            # A checkpoint that is unfinished by now stays so, and would keep a full disk full. One
            # that is gathered may still be written for the first process of this machine.
            if self._writes and (hosts.is_first() or not self._saves):
                _wait_for_writers()
                for partial in self.directory.glob(f"*{UNFINISHED_CHECKPOINT}"):
                    with contextlib.suppress(OSError):
                        checkpoint_files.remove(partial)

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint; None if there is none."""
        if self._saves and self._saves.newest is not None:
            return self._saves.newest
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(
        self, state: TrainState, data: DataState, values: Mapping[int, float] | None = None
    ) -> None:
        """Starts to save checkpoint `state.step`.

        If this object was made without `at_once`, the arrays may be donated as soon as `save`
        returns. Otherwise they may be donated after `wait`.

        Args:
            state: the state of training.
            data: position in the training data.
            values: maps a step to the value of the metric that decides which checkpoint is the
                best.

        Raises:
            Exception: writing failed, now or in the background since the last call.
        """
        step = int(state.step)
        if step == self.latest():
            return
        if self._preservation:
            self._preservation.values = values or {}
        content = checkpoint_files.with_digests(items(state), data)
        if self._saves:
            self._saves.save(step, content, values or {})
            return
        self.wait()
        with self._refusals_explained():
            self._saving = self._orbax.save_checkpointables_async(step, content, force=True)

    def wait(self) -> None:
        """Waits until every checkpoint that `save` has started is on disk.

        Raises:
            Exception: any error of writing.
        """
        try:
            if self._saves:
                self._saves.wait()
            with self._refusals_explained():
                self._orbax.wait()
        finally:
            self._release()

    def _refusals_explained(self) -> contextlib.AbstractContextManager:
        """Context manager that turns errors of a bucket, if that holds the run, into a UserError.

        The libraries have repeated a request that the bucket does not answer for minutes by then.
        """
        where = str(self.directory)
        return (
            objects.explained(where, "written") if has_scheme(where) else contextlib.nullcontext()
        )

    def _release(self) -> None:
        """Ends the thread in which Orbax waits for the last save, once that save has ended.

        If nobody asks for the result of a save, Orbax keeps this thread and its three file
        descriptors for ever. A run of 340 checkpoints would then hold 1,020 descriptors, and the
        usual limit is 1,024.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            # An error of writing is also raised by `wait` or `close`.
            with contextlib.suppress(Exception):
                saving.result(_WRITERS_SECONDS)

    def restore(self, abstract: TrainState) -> Restored:
        """Reads the newest undamaged checkpoint, which may have been saved on another mesh.

        All checkpoints newer than this one are damaged, and are renamed from N to N.damaged, so
        that the run can save N again. If all checkpoints are damaged, nothing is renamed. With
        several processes, every process must call this method, and all read the same checkpoint.

        Args:
            abstract: shapes and shardings of the state.

        Raises:
            DamagedCheckpoint: every checkpoint is damaged or belongs to another network.
            UserError: there is no checkpoint, or a checkpoint cannot be read for another reason.
        """
        damaged: dict[int, str] = {}
        for step in self._steps():
            try:
                # A run that could skip no update until now has no counts of it.
                checkpoint, asked = self.directory / str(step), items(abstract)
                loaded = checkpoint_files.load(checkpoint, asked, optional=("guard",))
                break
            except DamagedCheckpoint as error:
                damaged[step] = str(error)
        else:
            _, *before = damaged
            others = (
                f"none of the {len(before)} before it is whole" if before else "it is the only one"
            )
            raise DamagedCheckpoint(
                f"{next(iter(damaged.values()))}, and {others}: remove that directory to go on "
                "without it"
            )
        self._set_aside(damaged)
        if self._saves:
            self._saves.newest = step
        notes = [
            f"{why}; it is {bad}.damaged now, and the run goes back to update {step}"
            for bad, why in damaged.items()
        ]
        notes += [loaded.note] if loaded.note else []
        fields = {"frozen": {}, "guard": _zeros(abstract.guard)} | loaded.items
        state = abstract.replace(**fields.pop("train"), **fields)
        return Restored(state, loaded.data, tuple(notes))

    def restore_ema_params(self, abstract: TrainState, step: int | None = None) -> Any:
        """Reads all parameters of the network from a checkpoint, and nothing else.

        The running averages (EMA) take the place of the trained parameters. Adapters are merged
        into the kernels. The arguments and errors are those of `restore_ema`.
        """
        return self.restore_ema(abstract, step).ema_params

    def restore_ema(self, abstract: TrainState, step: int | None = None) -> TrainState:
        """Reads the averaged and the frozen parameters from a checkpoint.

        Args:
            abstract: shapes and shardings of the state.
            step: step of the checkpoint, which must be there; None for the newest.

        Returns:
            `abstract` with these parameters. All else stays abstract.

        Raises:
            DamagedCheckpoint: the checkpoint is damaged or belongs to another network.
            UserError: there is no such checkpoint, or it cannot be read for another reason.
        """
        newest, *_ = self._steps()
        step = newest if step is None else step
        wanted = {k: v for k, v in items(abstract).items() if k in ("ema", "frozen")}
        try:
            loaded = checkpoint_files.load(self.directory / str(step), wanted)
        except DamagedCheckpoint as error:
            raise DamagedCheckpoint(
                f"{error}: remove that directory to use the checkpoint before it"
                if step == newest
                else str(error)
            ) from error
        if loaded.note and hosts.is_first():
            print(f"stunet: {loaded.note}", file=sys.stderr)
        return abstract.replace(**({"frozen": {}} | loaded.items))

    def _steps(self) -> list[int]:
        """Returns the step of each complete checkpoint, newest first.

        Raises:
            UserError: there is no checkpoint.
        """
        found = [checkpoint.step for checkpoint in reversed(self._orbax.checkpoints)]
        if not found:
            raise UserError(f"no checkpoint in {self.directory}; train first")
        return found

    def _set_aside(self, damaged: Iterable[int]) -> None:
        """Renames each damaged checkpoint N to N.damaged. Every process must call this method."""
        if not damaged:
            return
        self._orbax.close()
        for step in damaged if hosts.is_first() else ():
            checkpoint = self.directory / str(step)
            aside = checkpoint.with_name(f"{step}.damaged")
            checkpoint_files.remove(aside)
            checkpoint.rename(aside)
        hosts.wait_for_all("damaged checkpoints renamed")
        self._orbax = self._open()


class _Preservation:
    """Tells Orbax which checkpoints stay, by the rules of a `Retention`.

    Attributes:
        values: maps a step to the value of the metric that decides which checkpoint is the best.
    """

    def __init__(self, retention: Retention):
        self._retention = retention
        self.values: Mapping[int, float] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Tells for each checkpoint whether it stays."""
        kept = self._retention.kept([c.step for c in checkpoints], self.values)
        return [checkpoint.step in kept for checkpoint in checkpoints]


class _InTurn:
    """Makes Orbax write the arrays of a tree batch by batch, with one transaction for each batch.

    Everything that a transaction writes stays in memory until the transaction ends.
    """

    def key_priority(self, _) -> TransferPriority:
        return TransferPriority.ASYNCHRONOUS_DEPRIORITIZED

    def on_transfer_end(self, _) -> None:
        pass

    def on_write_end(self, _) -> None:
        pass


def _saving_context(at_once: int | None) -> ocp.Context:
    context = checkpoint_files.context()
    if at_once is not None:
        context.memory.transfer_concurrent_bytes = at_once
        context.memory.serialization_status_callback = _InTurn()
    return context


def silence_late_failures() -> None:
    """Silences the tracebacks of reads and writes that end after another read or write failed.

    If several writes fail, Orbax raises the first error and closes its event loop. Each of the
    other writes then fails with "Event loop is closed". If a read fails, Orbax abandons the other
    reads. Python closes their coroutines with GeneratorExit, and Orbax turns that into an exception
    with pages of TensorStore's settings.

    These reads and writes may end at any time after the failure, so they stay silenced until the
    process ends. Other errors that cannot be raised are printed as before.
    """
    if not isinstance(sys.unraisablehook, _OtherFailures):
        sys.unraisablehook = _OtherFailures(sys.unraisablehook)


class _OtherFailures(NamedTuple):
    """Reports errors that cannot be raised, except those that `silence_late_failures` silences."""

    report: Callable[[Any], None]

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        # Python may give no error here, only its type.
        cause = getattr(error, "__cause__", None)
        if str(error) != "Event loop is closed" and not isinstance(cause, GeneratorExit):
            self.report(unraisable)


def _wait_for_writers() -> None:
    """Waits until Orbax's threads have ended, for `_WRITERS_SECONDS` at most.

    If one thread fails, `close` raises its error although other threads still write. Those threads
    would create the directories of an unfinished checkpoint again after `__exit__` removed them.
    """
    deadline = time.monotonic() + _WRITERS_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            # Orbax's own `join` would raise again.
            threading.Thread.join(thread, max(0, deadline - time.monotonic()))


def _zeros(abstract: Any) -> Any:
    """Returns arrays of zeros with the shapes and shardings of a tree."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), abstract)


def items(state: TrainState) -> dict[str, Any]:
    """Returns the parts of a checkpoint by name, without the position in the data."""
    train = {"step": state.step, "params": state.params, "opt_state": state.opt_state}
    frozen = {"frozen": state.frozen} if state.frozen else {}
    optional = ("guard", "power_ema", "teacher")
    kept = {key: of for key in optional if (of := getattr(state, key))}
    return {"train": train, "ema": state.ema} | frozen | kept
