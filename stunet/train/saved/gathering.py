"""Writes checkpoints of several processes to a bucket to which Orbax cannot write from them.

Orbax writes checkpoints of several processes to a directory that all of them see: on a disk, or in
gs://, which it opens itself. It has no driver for s3://, where each machine has a copy of the
directory. And its save waits for all processes, so that the first one cannot save for them. So the
first process sends all arrays, one after the other, to a process of its own, which belongs to no
run and saves them as a single process would. Every process reads its own copy.
"""

import contextlib
import multiprocessing
import pathlib
import signal
from collections.abc import Mapping
from multiprocessing import connection
from typing import Any

import jax
from absl import logging
from orbax.checkpoint import v1 as ocp

from stunet.parallel import hosts
from stunet.signals import STOP_SIGNALS, end_with_parent
from stunet.stores import mirror
from stunet.train.saved import checkpoint_files
from stunet.train.saved.checkpoint_names import StepNames
from stunet.train.saved.retention import Retention


def gathers(workdir: pathlib.Path) -> bool:
    """Tells whether checkpoints of this run are written by a process of their own."""
    return jax.process_count() > 1 and mirror.is_copied(workdir, "checkpoints")


class Writing:
    """Writes a directory of arrays in the background. Every process must call each method.

    The arrays may be donated when the object is made. The process that writes them holds all of
    them in its host's memory, and the others one at a time.

    Args:
        path: the directory.
        content: all that is stored in it: arrays, and what fits into JSON.
    """

    def __init__(self, path: pathlib.Path, content: Mapping[str, Any]):
        self._process = None
        leaves, structure = jax.tree.flatten(dict(content))
        if hosts.is_first():
            # "spawn" copies neither the threads of this process nor its devices.
            context = multiprocessing.get_context("spawn")
            self._pipe, other = context.Pipe()
            self._process = context.Process(target=_write, args=(other, path), daemon=True)
            self._process.start()
            other.close()
        try:
            # The tree itself can be pickled, and its structure cannot.
            self._send(jax.tree.unflatten(structure, range(len(leaves))))
            for leaf in leaves:
                self._send(hosts.gather(leaf) if isinstance(leaf, jax.Array) else leaf)
        except BaseException:
            if self._process:
                self._pipe.close()  # The process ends.
            raise

    def _send(self, value: Any) -> None:
        # A process that has failed says why when it is waited for.
        with contextlib.suppress(BrokenPipeError):
            if self._process:
                self._pipe.send(value)

    def wait(self) -> None:
        """Waits until all is on disk.

        Raises:
            Exception: any error of writing.
        """
        if not self._process:
            return
        try:
            error = self._pipe.recv()
        except EOFError:
            error = ChildProcessError("the process that writes the checkpoint was killed")
        self._process.join()
        self._pipe.close()
        if error:
            raise error


def _write(pipe: connection.Connection, path: pathlib.Path) -> None:
    """Receives a tree and saves it. Answers with an error, or None."""
    # A signal to stop the run may reach this process too, and the run saves a checkpoint then.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # What a run that was killed leaves unfinished must stay so: another may go on at once.
    end_with_parent()
    jax.config.update("jax_platforms", "cpu")
    logging.set_verbosity(logging.FATAL)
    with contextlib.suppress(EOFError, BrokenPipeError):
        numbers = pipe.recv()
        leaves = [pipe.recv() for _ in jax.tree.leaves(numbers)]
        content = jax.tree.unflatten(jax.tree.structure(numbers), leaves)
        try:
            with checkpoint_files.context():
                ocp.save_checkpointables(path, content)
        except Exception as error:
            # Not every exception can be pickled. Those of a full disk can, and are explained.
            pipe.send(error if isinstance(error, OSError) else RuntimeError(str(error)))
        else:
            pipe.send(None)


class Saves:
    """Saves checkpoints in the background, one at a time. Every process must call each method.

    Args:
        directory: directory of the checkpoints.
        keep: says which checkpoints stay after a new one is saved.

    Attributes:
        newest: step of the newest checkpoint, in every process; None if there is none. The caller
            sets it when a run continues.
    """

    def __init__(self, directory: pathlib.Path, keep: Retention):
        self._directory, self._keep = directory, keep
        self._writing: Writing | None = None
        self._values: Mapping[int, float] = {}
        self.newest: int | None = None

    def save(self, step: int, content: Mapping[str, Any], values: Mapping[int, float]) -> None:
        """Starts to save a checkpoint. Its arrays may be donated when this method returns.

        Args:
            step: number of updates after which it is saved.
            content: all that is stored in it.
            values: maps a step to the value of the metric that decides which checkpoint is best.
        """
        self.wait()
        self.newest, self._values = step, values
        self._writing = Writing(self._directory / str(step), content)

    def wait(self) -> None:
        """Waits until the checkpoint is on disk, and removes those that do not stay.

        Raises:
            Exception: any error of writing.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        writing.wait()
        if hosts.is_first():
            found = {one.step: one.path for one in StepNames().find_all(self._directory)}
            for step in found.keys() - self._keep.kept([*found], self._values):
                checkpoint_files.remove(found[step])
