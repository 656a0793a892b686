"""Reads and writes the weights of a text encoder in a checkpoint in the format of Hugging Face."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
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
        return {
            weight: (name, self._header(file, name).shape)
            for weight, (file, name) in self._stored.items()
        }

    def read(self, change: Change | None = None) -> dict[str, Any]:
        """Returns the module's parameters, in the dtypes of the files.

        Args:
            change: changes the weights; None leaves them as they are.

        Raises:
            UserError: a weight does not have the shape that config.json implies, or a file is
                damaged.
        """
        params = dict(self._values(change))
        return {"params": flax.traverse_util.unflatten_dict(params, sep="/")}

    def write(self, directory: Path, change: Change | None = None) -> None:
        """Writes the weights to a directory, in one file, with the names and dtypes of the files.

        One weight is in memory at a time. Tensors that the module does not have are left out.

        Args:
            directory: directory to write to, which exists.
            change: see `read`.

        Raises:
            UserError: see `read`; or a weight is not of floating-point numbers.
        """
        headers = {name: self._header(file, name) for file, name in self._stored.values()}
        for name, (dtype, _) in headers.items():
            if dtype not in tensorfiles.DTYPES:
                raise UserError(
                    f"the weight {name!r} of a text encoder is of the type {dtype}; weights of the "
                    f"types {', '.join(tensorfiles.DTYPES)} can be written"
                )
        with tensorfiles.Writer(directory / f"{_STEM}.safetensors", headers) as writer:
            for weight, value in self._values(change):
                writer.add(self._stored[weight][1], _turned(weight, value))

    @staticmethod
    def _header(file: Path, name: str) -> tensorfiles.Header:
        with tensorfiles.tensor(file, name) as tensor:
            return tensorfiles.Header(tensor.get_dtype(), tuple(tensor.get_shape()))

    def _values(self, change: Change | None) -> Iterator[tuple[str, np.ndarray]]:
        """Yields each weight's name in the module, and its value there, one at a time.

        Raises:
            UserError: see `read`.
        """
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
        shapes = jax.eval_shape(self._architecture.module.init, jax.random.key(0), ids, mask)
        expected = flax.traverse_util.flatten_dict(shapes["params"], sep="/")
        for weight, (file, name) in self._stored.items():
            with tensorfiles.tensor(file, name) as tensor:
                value = tensor[:]
            value = _turned(weight, change(weight, value) if change else value)
            if value.shape != expected[weight].shape:
                raise UserError(
                    f"{name!r} in {file} has the shape {value.shape} where config.json says "
                    f"{expected[weight].shape}; the file belongs to another checkpoint"
                )
            yield weight, value


def _turned(weight: str, value: np.ndarray) -> np.ndarray:
    """Returns a weight of a file as the module has it, or the other way round.

    The matrices of PyTorch's linear layers are stored transposed.
    """
    return value.T if weight.endswith("kernel") else value
