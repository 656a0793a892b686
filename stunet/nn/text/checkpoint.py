"""A text encoder's weights, as transformers' `save_pretrained` wrote them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from stunet import tensorfiles
from stunet.errors import UserError

Fields = TypeVar("Fields")

_STEM = "model"


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
        files = tensorfiles.locate(directory, _STEM)
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
            with tensorfiles.tensor(*stored) as tensor:
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
            with tensorfiles.tensor(*stored) as tensor:
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
