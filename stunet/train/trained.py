"""Loads the averaged weights of a trained network, from a run or from a file.

A run is a working directory of `stunet train`. A file is one that `stunet export --format
safetensors` wrote.
"""

import pathlib
from typing import Any

import jax

from stunet.errors import UserError
from stunet.formatting import first_few
from stunet.train import checkpoint_names, metric_lines, weights_file
from stunet.train.checkpoints import Checkpoints
from stunet.train.parts import Parts
from stunet.train.state import abstract_state


def restore(place: pathlib.Path, parts: Parts, mesh: jax.sharding.Mesh) -> tuple[Any, int]:
    """Reads all parameters of a network, laid out on the mesh, which must be in use.

    Args:
        place: working directory of a run, of which `parts.checkpoint` names a checkpoint; or a
            weights file.
        parts: what `stunet.train.parts.read_parts` returns for `place`.
        mesh: the devices.

    Returns:
        The parameters, in the dtypes in which a run of this config stores them, and the number of
        updates that they have had.

    Raises:
        UserError: there is no such checkpoint, or the checkpoint or the file is damaged or holds
            the weights of another network.
    """
    step = find_step(place, parts)
    abstract = abstract_state(parts.denoiser, parts.optimizer, mesh)
    if place.suffix != weights_file.SUFFIX:
        with Checkpoints(place) as checkpoints:
            return checkpoints.restore_ema_params(abstract, step), step
    header, wanted = weights_file.read_header(place), abstract.ema_params
    weights_file.check(place, header, wanted)
    params = weights_file.read(place, wanted)
    params = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), params, wanted)
    return params, step


def find_step(place: pathlib.Path, parts: Parts) -> int:
    """Returns the step of the checkpoint that `parts.checkpoint` names: "newest", "best" or a step.

    A weights file has one set of weights, and its step is returned, or 0 if the file does not say.

    Args:
        place: working directory of a run, or a weights file.
        parts: what `stunet.train.parts.read_parts` returns for `place`.

    Raises:
        UserError: there is no such checkpoint.
    """
    wanted, best = parts.checkpoint, parts.retention.best
    if place.suffix == weights_file.SUFFIX:
        step = weights_file.read_header(place).step or 0
        if wanted not in ("newest", str(step)):
            raise UserError(
                f"{place} holds the weights after update {step} alone, and no checkpoint {wanted}"
            )
        return step
    steps = checkpoint_names.steps(place)
    if not steps:
        raise UserError(f"no checkpoint in {checkpoint_names.place(place)}; train first")
    if wanted == "newest":
        return steps[0]
    if wanted == "best" and not best:
        raise UserError(
            f"{place} has no best checkpoint, since checkpoint.keep_best of its config is empty; "
            f"choose a checkpoint by its number of updates: {first_few(list(map(str, steps)))}"
        )
    if wanted == "best":
        values = metric_lines.read_values(place / metric_lines.FILE, best)
        step = parts.retention.find_best(steps, values)
        if step is None:
            raise UserError(f"{place}: {best} was measured for none of its checkpoints yet")
        return step
    if int(wanted) not in steps:
        raise UserError(
            f"{place} has no checkpoint {wanted}; there are {first_few(list(map(str, steps)))}"
        )
    return int(wanted)
