"""Loads the averaged weights of a trained network, from a run or from a file.

A run is a working directory of `stunet train`. A file is one that `stunet export --format
safetensors` wrote.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from stunet import configs
from stunet.errors import UserError
from stunet.stores import mirror
from stunet.train.measured import metric_lines
from stunet.train.parts import Parts, read_parts
from stunet.train.sampling import WithWeaker
from stunet.train.saved import checkpoint_names, weights_file
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.state import abstract_state

# Groups and keys of the config in which two networks, their inputs or their clips may differ.
_OF_NETWORKS = (
    *("model.", "text.", "autoencoder.", "masks.", "upscale.", "tsr."),
    *(f"data.{key} " for key in ("frames", "height", "width", "channels", "stride", "fps")),
    *(f"diffusion.{key} " for key in ("schedule", "shift", "log_snr_min", "log_snr_max")),
    *(f"diffusion.{key} " for key in ("beta_start", "beta_end", "zero_terminal_snr")),
    *(f"diffusion.{key} " for key in ("prediction", "input_scale")),
)


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
    abstract = abstract_state(parts.model, parts.optimizer, mesh)
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
    wanted = parts.checkpoint
    if place.suffix == weights_file.SUFFIX:
        step = weights_file.read_header(place).step or 0
        if wanted not in ("newest", str(step)):
            raise UserError(
                f"{place} holds the weights after update {step} alone, and no checkpoint {wanted}"
            )
        return step
    steps, directory = checkpoint_names.steps(place), checkpoint_names.place(place)
    if not steps:
        raise UserError(f"no checkpoint in {directory}; train first")
    if wanted == "newest":
        return steps[0]
    if wanted == "best":
        return _find_best(place, parts, steps)
    if int(wanted) not in steps:
        raise UserError(
            f"no checkpoint after update {wanted} in {directory}; there are "
            f"{', '.join(map(str, reversed(steps)))}, and checkpoint.keep_every keeps more"
        )
    return int(wanted)


def _find_best(workdir: pathlib.Path, parts: Parts, steps: Sequence[int]) -> int:
    """Returns the step of the checkpoint that `checkpoint.keep_best` keeps."""
    metric = parts.retention.best
    if not metric:
        raise UserError(
            f"{workdir} has no best checkpoint: checkpoint.keep_best of its config is empty; name "
            "a metric there, or choose a checkpoint by its number of updates"
        )
    values = metric_lines.read_values(workdir / metric_lines.FILE, metric)
    step = parts.retention.find_best(steps, values)
    if step is None:
        raise UserError(f"{workdir}: {metric} was measured for none of its checkpoints yet")
    return step


def restore_to_sample(
    place: pathlib.Path, parts: Parts, mesh: jax.sharding.Mesh
) -> tuple[Any | WithWeaker, int]:
    """Reads what the functions of `stunet.train.sampling` take as parameters.

    These are the parameters of the network. If the settings ask for autoguidance, they come with
    those of a weaker version of the network, from the place `SamplerSettings.autoguidance_from`: an
    earlier checkpoint of the same run, another run, or a weights file.

    Arguments, results and errors are those of `restore`.

    Raises:
        UserError: also if there is no such checkpoint, or the weaker version is another network.
    """
    params, step = restore(place, parts, mesh)
    if parts.sampling.autoguidance_scale == 1:
        return params, step
    return WithWeaker(params, _restore_weaker(place, parts, mesh)), step


def _restore_weaker(place: pathlib.Path, parts: Parts, mesh: jax.sharding.Mesh) -> Any:
    source, is_file = parts.sampling.autoguidance_from, place.suffix == weights_file.SUFFIX
    if not source.isdecimal():
        is_beside = is_file and source == configs.WEAKER
        other_place = place.with_name(source) if is_beside else mirror.fetched(source)
        other = read_parts(other_place)
        _check_same_network(source, other, parts)
        return restore(other_place, other, mesh)[0]
    if is_file:
        raise UserError(
            f"sample.autoguidance_from is {source}, which is a checkpoint of a run, and {place} is "
            "a file of weights; name another file of weights, or the directory of a run"
        )
    return restore(place, dataclasses.replace(parts, checkpoint=source), mesh)[0]


def _check_same_network(source: str, other: Parts, parts: Parts) -> None:
    """Checks that two networks differ in nothing but their weights.

    Raises:
        UserError: their shapes, inputs, clips or noise schedules differ.
    """
    found = configs.differences(other.config, parts.config)
    if of_networks := [difference for difference in found if difference.startswith(_OF_NETWORKS)]:
        raise UserError(
            f"sample.autoguidance_from: {source} holds another network: {'; '.join(of_networks)}; "
            "name a weaker version of the same network"
        )
