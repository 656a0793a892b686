"""Writes and reads snapshots: power-function averages of the weights, to be combined later.

`snapshots/N/` holds the averages after N updates (`stunet.train.optim.power_ema`), with a digest of
each array. A run keeps all of its snapshots. `reconstruct` computes averages of other lengths from
them.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from stunet.errors import UserError
from stunet.files import atomic, check_writable
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.stores import mirror
from stunet.train.optim import power_ema
from stunet.train.parts import read_parts
from stunet.train.saved import checkpoint_files, weights_file
from stunet.train.saved.checkpoint_names import StepNames
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.gathering import Writing, gathers
from stunet.train.state import TrainState, abstract_state


def place(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the absolute path of the directory that holds a run's snapshots."""
    return mirror.place(workdir, "snapshots")


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the number of updates of each complete snapshot of a run, in order."""
    return sorted(found.step for found in StepNames().find_all(place(workdir)))


def save(workdir: pathlib.Path, state: TrainState) -> None:
    """Writes the snapshot after update `state.step`, and waits until it is on disk.

    With several processes, every process must call this function.
    """
    step = int(state.step)
    content = checkpoint_files.with_digests({"power_ema": state.power_ema}, {"step": step})
    if gathers(workdir):
        Writing(place(workdir) / str(step), content).wait()
        return
    with checkpoint_files.context():
        ocp.save_checkpointables(place(workdir) / str(step), content)


def drop_later(workdir: pathlib.Path, step: int) -> None:
    """Removes the snapshots of updates after `step`, which are done and written again.

    Unfinished snapshots, which a killed run leaves, are removed too. With several processes, every
    process must call this function.
    """
    kept = {str(before) for before in steps(workdir) if before <= step}
    for path in place(workdir).glob("*") if hosts.is_first() else ():
        if path.name not in kept:
            checkpoint_files.remove(path)
    hosts.wait_for_all("later snapshots dropped")


def load(workdir: pathlib.Path, step: int, abstract: TrainState) -> dict[str, Any]:
    """Reads the averages of one snapshot, by name, and compares them with their digests.

    Args:
        workdir: working directory of the run.
        step: number of updates of the snapshot.
        abstract: shapes and shardings of the run's state.

    Raises:
        DamagedCheckpoint: the snapshot does not hold what was saved.
        UserError: it cannot be read for another reason.
    """
    wanted = {"power_ema": abstract.power_ema}
    return checkpoint_files.load(place(workdir) / str(step), wanted).items["power_ema"]


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Describes an average that was computed from snapshots.

    Attributes:
        length: length of the average, as a share of the updates until its end.
        file: weights file that holds it.
        step: number of updates until its end.
        snapshots: number of snapshots that it was computed from.
        error: how far its weighting is from the exact one (`power_ema.coefficients`).
    """

    length: float
    file: pathlib.Path
    step: int
    snapshots: int
    error: float


def reconstruct(
    workdir: pathlib.Path, lengths: Sequence[float], end: int | None = None
) -> list[Reconstruction]:
    """Computes averages of other lengths, and writes each to a weights file in `workdir/ema/`.

    Each snapshot is read once. Memory holds one snapshot, and one average for each length.

    Args:
        workdir: working directory of a run with snapshots.
        lengths: lengths to compute, from `power_ema.SHORTEST` to `power_ema.LONGEST`.
        end: number of updates after which the averages end, which must be that of a snapshot; None
            for the newest snapshot.

    Raises:
        UserError: the run has no snapshots, or none at `end`; or one is damaged.
    """
    parts, found = read_parts(workdir), steps(workdir)
    if not found:
        raise UserError(
            f"there are no snapshots in {workdir}; train with --config.train.ema_snapshots=N, such "
            "as a 32nd of train.steps"
        )
    end = found[-1] if end is None else end
    if end not in found:
        nearest = min(found, key=lambda step: abs(step - end))
        raise UserError(f"{workdir} has no snapshot after update {end}; the nearest is {nearest}")
    check_writable(workdir, "the averages belong there; ask its owner, or copy the run")
    used = [step for step in found if step <= end]
    # The averages of each snapshot, in the order in which they are read.
    times = [step for step in used for _ in power_ema.LENGTHS]
    stored = [length for _ in used for length in power_ema.LENGTHS.values()]
    solved = [power_ema.coefficients(times, stored, length) for length in lengths]
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh):
        abstract = abstract_state(parts.model, parts.optimizer, mesh)
        with Checkpoints(workdir) as checkpoints:
            state = checkpoints.restore_ema(abstract)
        sums = _weighted_sums(workdir, used, abstract, [factors for factors, _ in solved])
        files = [workdir / "ema" / f"{end}_{length:g}{weights_file.SUFFIX}" for length in lengths]
        for file, average in zip(files, sums, strict=True):
            params = state.network_params(average)
            file.parent.mkdir(exist_ok=True)
            with atomic(file) as partial:
                weights_file.write(partial, weights_file.cast(params, None), parts.config, end)
    return [
        Reconstruction(length, file, end, len(used), error)
        for length, file, (_, error) in zip(lengths, files, solved, strict=True)
    ]


def _weighted_sums(
    workdir: pathlib.Path,
    used: Sequence[int],
    abstract: TrainState,
    factors: Sequence[np.ndarray],
) -> list[Any]:
    """Returns sums of the averages of all snapshots, one for each list of factors."""
    add = jax.jit(lambda total, factor, x: jax.tree.map(lambda s, a: s + factor * a, total, x))
    sums = [jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract.params) for _ in factors]
    for i, step in enumerate(used):
        averages = load(workdir, step, abstract)
        for j, name in enumerate(power_ema.LENGTHS):
            place = i * len(power_ema.LENGTHS) + j
            sums = [
                add(total, np.float32(each[place]), averages[name])
                for total, each in zip(sums, factors, strict=True)
            ]
    return sums
