"""Reads and writes a network's parameters as one safetensors file.

`stunet.nn.parameters` defines the names of the arrays. The file's metadata says where the weights
come from. `config` holds the run's config as JSON. `training_step` holds the number of updates
after which the weights were saved. `digests` holds a digest of each array. Reading an array
verifies its digest. A file without this metadata can also be read.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from stunet import configs, jsonfiles, tensorfiles
from stunet.errors import UserError
from stunet.nn import parameters
from stunet.train.saved import digests

SUFFIX = ".safetensors"


class Header(NamedTuple):
    """Holds what a weights file says about its contents.

    Attributes:
        shapes: shape of each array, by name.
        config: config of the run that the weights come from; None if the file holds no config.
        step: number of updates that the weights have had; None if the file does not say.
    """

    shapes: dict[str, tuple[int, ...]]
    config: configs.Experiment | None
    step: int | None = None


def cast(params: Any, dtype: str | None) -> dict[str, np.ndarray]:
    """Returns the parameters of a network by name, copied to the host and cast to `dtype`.

    Args:
        params: parameters of a network.
        dtype: "float32" or "bfloat16"; None leaves each dtype as it is.
    """
    kind = dtype and jnp.dtype(dtype)
    # Contiguous, since a file holds no strides.
    return {
        name: np.ascontiguousarray(leaf, kind)
        for name, leaf in parameters.flatten(jax.device_get(params)).items()
    }


def write(
    file: pathlib.Path,
    named: Mapping[str, np.ndarray],
    config: configs.Experiment,
    step: int | None,
) -> None:
    """Writes parameters into a weights file.

    Args:
        file: file to write. Other processes may see the file before it is complete.
        named: parameters by name, as `cast` makes them.
        config: config of the run that the parameters come from.
        step: number of updates after which the parameters were saved; None if it is not known.
    """
    metadata = {
        "config": json.dumps(dataclasses.asdict(config)),
        "digests": json.dumps(digests.of_arrays(dict(named))),
    }
    if step is not None:
        metadata["training_step"] = str(step)
    tensorfiles.write(file, named, metadata)


def read_header(file: pathlib.Path) -> Header:
    """Reads what a weights file says about its contents, without reading weights.

    Raises:
        UserError: the file is missing, damaged or cut off, or was written by another version of
            this program.
    """
    with _opened(file) as stored:
        found = stored.keys()
        shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in found}
        metadata = stored.metadata() or {}
    said, step = metadata.get("config"), metadata.get("training_step", "")
    step = int(step) if step.isdecimal() else None
    if said is None:
        return Header(shapes, None, step)
    try:
        found = jsonfiles.parse(said, jsonfiles.Object, "the config in its header")
        return Header(shapes, configs.resolve(found), step)
    except UserError as error:
        raise UserError(f"{file} is of another version of this program ({error})") from error


def check(file: pathlib.Path, header: Header, params: Any) -> None:
    """Checks that a file has exactly the parameters of a network.

    Args:
        file: name of the file, for messages.
        header: header of the file.
        params: parameters of the network, as arrays or as their shapes.

    Raises:
        UserError: a parameter is missing, has another shape, or does not belong to the network.
    """
    wanted = parameters.shapes(params)
    for name, shape in wanted.items():
        found = header.shapes.get(name)
        if found is None:
            raise UserError(
                f"{file} has no weight {name!r}, which the network needs; names and shapes are "
                "those that `stunet export --format safetensors` writes of such a run"
            )
        if found != shape:
            raise UserError(
                f"{name!r} has the shape {found} in {file}, and {shape} in the network; take the "
                "weights of one with the same model.*, text.dim and data.channels"
            )
    if more := header.shapes.keys() - wanted.keys():
        raise UserError(
            f"{file} has a weight {min(more)!r}, which the network does not have; take the weights "
            "of one with the same model.*"
        )


def read(file: pathlib.Path, like: Any) -> Any:
    """Reads the parameters of a network, in the dtypes that the file stores.

    Args:
        file: file that `check` has accepted.
        like: shape and sharding of each parameter. Each process reads what its devices hold.

    Raises:
        UserError: the file is missing, damaged or cut off, or a parameter differs from its digest.
    """
    params = {}
    with _opened(file) as stored:
        said = (stored.metadata() or {}).get("digests", "{}")
        for path, leaf in flatten_dict(like).items():
            layers = [stored.get_slice(name) for name in parameters.names(path, leaf.shape)]
            stacked = parameters.is_stacked(path)

            def part(index, layers=layers, stacked=stacked):
                if not stacked:
                    return layers[0][index]
                return np.stack([layer[index[1:]] for layer in layers[index[0]]])

            params[path] = jax.make_array_from_callback(leaf.shape, leaf.sharding, part)
    params = unflatten_dict(params)
    # A file of another program has no digests.
    if noted := jsonfiles.parse(said, dict[str, str], f"the list of digests in {file}"):
        for name, digest in digests.of_arrays(parameters.flatten(params)).items():
            if noted.get(name) != digest:
                raise UserError(
                    f"{file} is damaged: {name!r} is not what was written; export it again"
                )
    return params


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="numpy") as stored:
            yield stored
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is missing, damaged or cut off ({error})") from error
