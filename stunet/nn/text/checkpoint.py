"""Reads the weights of a text encoder from a checkpoint in the format of Hugging Face."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from stunet import tensorfiles
from stunet.errors import UserError

# Types of the keys of a config.json. The largest encoders stay far below these limits; more would
# only fill the memory.
Size = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Layers = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Epsilon = Annotated[float, msgspec.Meta(gt=0, le=1)]

# Returns a changed weight, for its name in the module and its value as in the file.
Change = Callable[[str, np.ndarray], np.ndarray]

_STEM = "model"


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A transformer, and the names of its weights in a checkpoint.

    Attributes:
        module: module from (ids, mask), both `[b, l]`, to states `[b, l, d]`.
        weight_names: maps each weight's name in the module, such as `layer/weight`, to the names
            that the weight may have in PyTorch.
        vocab_size: number of token ids; all ids are below it.
        dim: features of each token state (d).
        max_length: the largest l that the module takes; None for any.
        pads: True if padding is part of the text. All captions then have the same number of tokens.
    """

    module: nn.Module
    weight_names: Mapping[str, tuple[str, ...]]
    vocab_size: int
    dim: int
    max_length: int | None
    pads: bool = False


class Checkpoint:
    """The weights of a text encoder in a directory, which are read on demand."""

    def __init__(self, directory: Path, architecture: Architecture):
        """Finds the file of each weight.

        Args:
            directory: directory of the checkpoint.
            architecture: the transformer.

        Raises:
            UserError: the directory has no safetensors files, or they lack a weight.
        """
        self._architecture = architecture
        files = tensorfiles.locate(directory, _STEM)
        # For each weight, its file and its name there.
        self._stored: dict[str, tuple[Path, str]] = {}
        for weight, names in architecture.weight_names.items():
            name = next((n for n in names if n in files), None)
            if name is None:
                raise UserError(
                    f"{directory} has no weight {names[0]!r}, which its config.json asks for"
                )
            self._stored[weight] = files[name], name

    def fingerprint(self, *others: bytes) -> str:
        """Returns a digest of the weights and of `others`, as 16 hexadecimal digits.

        The digest does not depend on where the files are or how they are split into shards. Any
        training changes it. Only the first row of each matrix is read, which saves gigabytes of
        reading.
        """
        digest = hashlib.sha256()
        for weight, stored in sorted(self._stored.items()):
            with tensorfiles.tensor(*stored) as tensor:
                shape = tensor.get_shape()
                part = np.ascontiguousarray(tensor[:1] if len(shape) > 1 else tensor[:])
            digest.update(f"{weight} {part.dtype} {shape}\n".encode())
            digest.update(part.tobytes())
        for content in others:
            digest.update(content)
        return digest.hexdigest()[:16]

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Returns each weight's name and shape in the files, by its name in the module."""
        found = {}
        for weight, (file, name) in self._stored.items():
            with tensorfiles.tensor(file, name) as tensor:
                found[weight] = name, tuple(tensor.get_shape())
        return found

    def read(self, change: Change | None = None) -> dict[str, Any]:
        """Returns the module's parameters, in the dtypes of the files.

        Args:
            change: changes the weights; None leaves them as they are.

        Raises:
            UserError: a weight does not have the shape that config.json implies, or a file is
                damaged.
        """
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
        shapes = jax.eval_shape(self._architecture.module.init, jax.random.key(0), ids, mask)
        expected = flax.traverse_util.flatten_dict(shapes["params"], sep="/")
        params = {}
        for weight, stored in self._stored.items():
            with tensorfiles.tensor(*stored) as tensor:
                value = tensor[:]
            value = change(weight, value) if change else value
            # The matrices of PyTorch's linear layers are stored transposed.
            value = value.T if weight.endswith("kernel") else value
            if value.shape != expected[weight].shape:
                raise UserError(
                    f"{stored[1]!r} in {stored[0]} has the shape {value.shape} where config.json "
                    f"says {expected[weight].shape}; the file belongs to another checkpoint"
                )
            params[weight] = value
        return {"params": flax.traverse_util.unflatten_dict(params, sep="/")}
