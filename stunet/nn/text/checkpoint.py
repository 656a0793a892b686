"""Reads what Hugging Face's `save_pretrained` wrote: config.json and safetensors, in one file or
in several with an index."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from stunet.errors import UserError

Fields = TypeVar("Fields")

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A transformer, and where its weights are in a checkpoint.

    Attributes:
        module: of (ids, mask), both `[b, l]`, to states `[b, l, d]`.
        names: by each of its weights, as `layer/weight`, the names that PyTorch may have for it.
        vocab_size: token ids are below.
        dim: features of a state (d).
        max_length: the longest l, or None.
    """

    module: nn.Module
    names: Mapping[str, tuple[str, ...]]
    vocab_size: int
    dim: int
    max_length: int | None


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no keys")
    return found


def fields(cls: type[Fields], config: Mapping[str, Any], place: str) -> Fields:
    """The dataclass `cls` with the keys of a config.json that it knows.

    Raises:
        UserError: one that has no default is missing, or one is no number.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    values = {key: config[key] for key in known if key in config}
    for key, field in known.items():
        if key not in values and field.default is dataclasses.MISSING:
            raise UserError(f"{place} has no {key!r}, which the encoder's shape depends on")
        if not isinstance(values.get(key, 0), (int, float)):
            raise UserError(f"{place} has {key!r} {values[key]!r}; it must be a number")
    return cls(**values)


class Checkpoint:
    """The weights of an architecture in a directory; none is read until it is asked for."""

    def __init__(self, directory: Path, architecture: Architecture):
        """
        Raises:
            UserError: no safetensors there, or not these weights.
        """
        self._architecture = architecture
        files = _files(directory)
        self._found: dict[str, tuple[Path, str]] = {}
        for weight, names in architecture.names.items():
            name = next((n for n in names if n in files), None)
            if name is None:
                raise UserError(
                    f"{directory} has no weight {names[0]!r}, which its config.json asks for"
                )
            self._found[weight] = files[name], name

    def fingerprint(self, *others: Path) -> str:
        """Sixteen hexadecimal digits that stand for the weights and the files `others`: equal for
        copies elsewhere and for other shards, and different after any training.

        Of each matrix the first row is taken, so that this needs no reading of gigabytes.
        """
        digest = hashlib.sha256()
        for weight, stored in sorted(self._found.items()):
            with _opened(stored) as tensor:
                shape = tensor.get_shape()
                part = np.ascontiguousarray(tensor[:1] if len(shape) > 1 else tensor[:])
            digest.update(f"{weight} {part.dtype} {shape}\n".encode())
            digest.update(part.tobytes())
        for path in others:
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def read(self) -> dict[str, Any]:
        """The module's parameters, in the dtypes of the files.

        Raises:
            UserError: a weight of another shape than config.json says, a damaged file.
        """
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
        shapes = jax.eval_shape(self._architecture.module.init, jax.random.key(0), ids, mask)
        wanted = flax.traverse_util.flatten_dict(shapes["params"], sep="/")
        params = {}
        for weight, stored in self._found.items():
            with _opened(stored) as tensor:
                value = tensor[:]
            # PyTorch's linear layers multiply by the transpose.
            value = value.T if weight.endswith("kernel") else value
            if value.shape != wanted[weight].shape:
                raise UserError(
                    f"{stored[1]!r} in {stored[0]} has the shape {value.shape} where config.json "
                    f"says {wanted[weight].shape}; the file belongs to another checkpoint"
                )
            params[weight] = value
        return {"params": flax.traverse_util.unflatten_dict(params, sep="/")}


@contextlib.contextmanager
def _opened(stored: tuple[Path, str]) -> Iterator[Any]:
    """Within: a stored tensor, of which parts can be read."""
    path, name = stored
    try:
        with safe_open(path, framework="numpy") as file:
            yield file.get_slice(name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error})") from error


def _files(directory: Path) -> dict[str, Path]:
    """The file of each tensor."""
    index, single = directory / _INDEX, directory / _SINGLE
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{index} is damaged: it has no 'weight_map'")
        return {name: directory / str(shard) for name, shard in shards.items()}
    if not single.is_file():
        raise UserError(
            f"{directory} has neither {_SINGLE} nor {_INDEX}; pickled weights, as in "
            "pytorch_model.bin, are not read: save the model again with transformers' "
            "save_pretrained"
        )
    try:
        with safe_open(single, framework="numpy") as file:
            return dict.fromkeys(file.keys(), single)
    except SafetensorError as error:
        raise UserError(f"{single} is damaged ({error})") from error
