"""Reads the files of one checkpoint, and compares the arrays with the digests saved beside them."""

import contextlib
import dataclasses
import gc
import logging
import math
import pathlib
import re
import stat
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from stunet.errors import UserError
from stunet.parallel import hosts
from stunet.paths import has_scheme
from stunet.train.saved import digests
from stunet.train.saved.checkpoint_names import check_path, place

DataState = dict[str, int]

Result = TypeVar("Result")

# Codes of TensorStore for errors in the files themselves, not in the system that stores them.
_FILE_ERRORS = ("DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")

# Bytes of arrays that `verify` reads at a time.
_AT_ONCE = 2**28


class DamagedCheckpoint(UserError):
    """Raised if a checkpoint does not hold what was saved, or belongs to another network."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Holds what was read from a checkpoint.

    Attributes:
        items: each tree of arrays that was read, by its name in the checkpoint, such as "ema".
        data: position in the training data.
        note: sentence for the user if nothing could be verified; "" if everything was verified.
            Checkpoints from earlier versions of the program have no digests to verify.
    """

    items: dict[str, Any]
    data: DataState
    note: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Holds the result of verifying a checkpoint.

    Attributes:
        problem: sentence that says what is wrong; "" if the checkpoint holds what was saved.
        arrays: number of arrays that were compared with their digests. If this is 0 and `problem`
            is empty, an earlier version of the program saved the checkpoint without digests. The
            arrays can then be read, but nothing shows whether they hold what was saved.
    """

    problem: str
    arrays: int


def context() -> ocp.Context:
    """Returns a context for Orbax in which digests are stored as JSON."""
    made = ocp.Context()
    registry = ocp.handlers.local_registry()
    registry.add(ocp.handlers.JsonHandler, checkpointable_name="digests")
    made.checkpointables.registry = registry
    return made


def with_digests(items: Mapping[str, Any], data: DataState) -> dict[str, Any]:
    """Returns all that is stored in a checkpoint: arrays, position in the data, and digests.

    With several processes, every process must call this function.
    """
    noted = digests.of_arrays(items) | {"data": digests.of_json(data)}
    return {**items, "data": data, "digests": noted}


def load(
    checkpoint: pathlib.Path, abstract: Mapping[str, Any], optional: Collection[str] = ()
) -> Loaded:
    """Reads trees of arrays and the position in the data from a checkpoint, and verifies both.

    Args:
        checkpoint: directory of the checkpoint.
        abstract: shapes and shardings of each tree to read, by its name in the checkpoint.
        optional: names of trees that the result leaves out if they were not saved.

    Raises:
        DamagedCheckpoint: the checkpoint does not hold what was saved, or belongs to another
            network.
        UserError: the checkpoint cannot be read for a reason other than damage, such as too little
            memory.
    """
    missing = [name for name in optional if not (checkpoint / name).exists()]
    abstract = {name: item for name, item in abstract.items() if name not in missing}
    items, problem = {}, ""
    try:
        _check_files(checkpoint)
        items = _explained(checkpoint, lambda: _read(checkpoint, abstract))
    except DamagedCheckpoint as error:
        problem = str(error)
    # Digests are computed by all processes together, so all must have come this far.
    _raise_together(problem)
    data, noted = items.pop("data"), items.pop("digests", None)
    found = digests.of_arrays(items)
    # Its digests tell an item that was lost from one that was never saved.
    named = noted if isinstance(noted, dict) else {}
    found |= {key: "" for key in named if key.split("/")[0] in missing}
    _raise_together(_difference(checkpoint, found, data, noted))
    note = "" if noted else f"{checkpoint} has no digests, so nothing verifies what is read from it"
    return Loaded(items, data, note)


def saved_at(weights: pathlib.Path) -> int:
    """Returns when a checkpoint or a weights file was written, in nanoseconds since 1970."""
    if has_scheme(str(weights)):  # Directories in a bucket have no time.
        return int(1e9 * (weights / "_CHECKPOINT_METADATA").stat().mtime)
    return weights.stat().st_mtime_ns


def remove(directory: pathlib.Path) -> None:
    """Removes a directory of arrays, on this machine or in a bucket, if there is one."""
    epath.Path(directory).rmtree(missing_ok=True)


def verify(workdir: pathlib.Path, step: int) -> Verdict:
    """Reads a whole checkpoint, a part at a time, and compares it with its digests.

    The check needs neither the run's config nor its devices, and changes no file.

    Args:
        workdir: working directory of the run.
        step: number of updates after which the checkpoint was saved.

    Raises:
        UserError: the checkpoint cannot be read for a reason other than damage, such as too little
            memory.
    """
    check_path(workdir)
    checkpoint = place(workdir) / str(step)
    found: dict[str, str] = {}

    def read() -> dict[str, Any]:
        rest = _read(checkpoint, {})
        trees = ocp.checkpointables_metadata(checkpoint).metadata
        for name in trees.keys() - rest.keys():
            for part in _parts(trees[name]):
                arrays = _read(checkpoint, {name: part}, rest=())
                # What was left out has no digest: None is no leaf.
                arrays = jax.tree.map(lambda x: None if x is ocp.PLACEHOLDER else x, arrays)
                found.update(digests.of_arrays(arrays))
        return rest

    try:
        _check_files(checkpoint)
        rest = _explained(checkpoint, read)
    except DamagedCheckpoint as error:
        return Verdict(str(error), len(found))
    problem = _difference(checkpoint, found, rest["data"], rest.get("digests"), whole=True)
    return Verdict(problem, len(found) if "digests" in rest else 0)


def _read(
    checkpoint: pathlib.Path,
    abstract: Mapping[str, Any],
    rest: tuple[str, ...] = ("data", "digests"),
) -> dict[str, Any]:
    """Reads parts of a checkpoint by name, and verifies nothing.

    Args:
        checkpoint: directory of the checkpoint.
        abstract: shapes and shardings of each tree of arrays to read, by its name.
        rest: names of the parts to read that hold no arrays. "digests" is left out if the
            checkpoint has no digests.
    """
    reading, process = context(), jax.process_index()
    # No process waits in Orbax for one that fails. The caller brings them together.
    reading.multiprocessing.active_processes = {process}
    reading.multiprocessing.primary_host = process
    reading.multiprocessing.barrier_sync_key_prefix = f"process_{process}"
    asked = {**dict.fromkeys(rest), **abstract}
    if not (checkpoint / "digests").exists():
        asked.pop("digests", None)
    read, errors = {}, []
    with reading:
        # One at a time: of several, those after one that fails would complain that nobody waits.
        for name, item in asked.items():
            try:
                read[name] = ocp.load_checkpointables(checkpoint, {name: item})[name]
            # Orbax numbers what it does. The next save waits for ever if another process, which
            # could read this one, has done more.
            except Exception as error:
                errors.append(error)
    if errors:
        raise errors[0]
    if not isinstance(read.get("digests", {}), dict):
        raise ValueError("its digests are none")
    return read


def _raise_together(problem: str) -> None:
    """Raises an error in all processes if one of them has found damage.

    So no process goes on with a checkpoint that another process rejects.

    Raises:
        DamagedCheckpoint: `problem` is not empty in at least one process.
    """
    if first := hosts.first_text(problem):
        raise DamagedCheckpoint(first)


def _check_files(checkpoint: pathlib.Path) -> None:
    """Checks that a checkpoint holds only regular files and directories.

    Reading a pipe or a device might never end.

    Raises:
        DamagedCheckpoint: the checkpoint holds something else.
    """
    if has_scheme(str(checkpoint)):
        return  # A bucket has only objects.
    for path in checkpoint.rglob("*"):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            problem = f"{path} is a link that leads nowhere"
        except OSError:
            # A disk that does not answer is no damage: the reader says what is the matter.
            continue
        else:
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                continue
            problem = f"{path} is no regular file"
        raise DamagedCheckpoint(f"checkpoint {checkpoint} is damaged ({problem})")


def _difference(
    checkpoint: pathlib.Path,
    found: Mapping[str, str],
    data: Any,
    noted: Mapping[str, str] | None,
    whole: bool = False,
) -> str:
    """Compares digests of what was read with the digests saved in the checkpoint.

    Args:
        checkpoint: directory of the checkpoint, which the message names.
        found: digests of the arrays that were read.
        data: position in the training data, as it was read.
        noted: digests that were saved; None if the checkpoint has no digests.
        whole: True if all arrays of the checkpoint were read.

    Returns:
        A sentence if a digest differs or is missing, and "" otherwise.
    """
    bad = []
    if not isinstance(data, dict) or not all(isinstance(v, int) for v in data.values()):
        bad = ["data"]
    elif noted is not None:
        found = {**found, "data": digests.of_json(data)}
        bad = [name for name, digest in found.items() if noted.get(name) != digest]
        bad += sorted(noted.keys() - found.keys()) if whole else []
    if not bad:
        return ""
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return f"checkpoint {checkpoint} is damaged ({bad[0]}{more}: not what was saved)"


def _parts(tree: Any) -> Iterator[Any]:
    """Splits the arrays of a tree into parts of about `_AT_ONCE` bytes, to read one by one.

    Yields:
        For each part, the whole tree. The arrays of the part are abstract arrays on this process's
        first device. All other arrays are placeholders, which Orbax does not read.
    """
    leaves, structure = jax.tree.flatten(tree)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    part, size = [], 0
    for i, leaf in enumerate(leaves):
        part.append(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding))
        size += leaf.dtype.itemsize * math.prod(leaf.shape)
        if size >= _AT_ONCE or i + 1 == len(leaves):
            before, after = i + 1 - len(part), len(leaves) - i - 1
            left_out = [ocp.PLACEHOLDER]
            yield jax.tree.unflatten(structure, left_out * before + part + left_out * after)
            part, size = [], 0


def _explained(checkpoint: pathlib.Path, read: Callable[[], Result]) -> Result:
    """Returns the result of `read()`, or says in one sentence why a checkpoint cannot be read.

    Raises:
        DamagedCheckpoint: a file is damaged, incomplete or of another network.
        UserError: the checkpoint cannot be read for another reason.
    """
    with _silenced():
        try:
            return read()
        # Orbax passes on whatever its readers raise: there is no narrower type.
        except Exception as error:
            problem = _problem(checkpoint, error)
        # Readers of other arrays complain when they are freed that nobody asked them.
        gc.collect()
    raise problem


def _problem(checkpoint: pathlib.Path, error: BaseException) -> UserError:
    """Turns an error of reading a checkpoint into a UserError of one sentence."""
    # Orbax's own message always says that the handler is incompatible.
    while error.__cause__:
        error = error.__cause__
    # The message may go on for pages, with the shape of every weight or with TensorStore's
    # settings.
    reason = (str(error) or repr(error)).split(" [tensorstore_spec=")[0]
    reason = textwrap.shorten(reason, 400, placeholder=" ...")
    why = f"cannot read checkpoint {checkpoint} ({reason}); "
    if _is_file_error(error):
        return DamagedCheckpoint(f"{why}it is damaged or of another network")
    return UserError(f"{why}nothing is known to be wrong with it: try again, or with more memory")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Context manager in which asyncio prints no warnings about tasks that nobody waits for."""
    logger = logging.getLogger("asyncio")
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        logger.disabled = False


def _is_file_error(error: BaseException) -> bool:
    """Tells whether a reading error means that a file is damaged, incomplete or of another network.

    Too little memory, or a disk or bucket that does not answer, is not such an error.
    """
    if isinstance(error, (LookupError, TypeError, AttributeError, FileNotFoundError)):
        return True
    # Orbax's errors of another structure or shape, and those of JSON, begin with no code.
    code = re.match(r"([A-Z_]+): ", str(error))
    return isinstance(error, ValueError) and (code is None or code[1] in _FILE_ERRORS)
