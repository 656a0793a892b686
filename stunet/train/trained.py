"""Loads the averaged weights of a trained network, from a run or from a file.

A run is a working directory of `stunet train`. A file is one that `stunet export --format
safetensors` wrote.
"""

import pathlib
from typing import Any

import jax

from stunet.train import weights_file
from stunet.train.checkpoints import Checkpoints
from stunet.train.parts import Parts
from stunet.train.state import abstract_state


def restore(place: pathlib.Path, parts: Parts, mesh: jax.sharding.Mesh) -> tuple[Any, int]:
    """Reads all parameters of a network, laid out on the mesh, which must be in use.

    Args:
        place: working directory of a run, whose newest checkpoint is read; or a weights file.
        parts: what `stunet.train.parts.read_parts` returns for `place`.
        mesh: the devices.

    Returns:
        The parameters, in the dtypes in which a run of this config stores them, and the number of
        updates that they have had.

    Raises:
        UserError: there is no checkpoint, or the checkpoint or the file is damaged or holds the
            weights of another network.
    """
    abstract = abstract_state(parts.denoiser, parts.optimizer, mesh)
    if place.suffix != weights_file.SUFFIX:
        with Checkpoints(place) as checkpoints:
            params = checkpoints.restore_ema_params(abstract)
            return params, checkpoints.latest()
    header, wanted = weights_file.read_header(place), abstract.ema_params
    weights_file.check(place, header, wanted)
    params = weights_file.read(place, wanted)
    params = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), params, wanted)
    return params, header.step or 0
