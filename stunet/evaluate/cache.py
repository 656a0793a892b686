"""Stores the measurements of each batch of clips on disk, so that no batch is measured twice."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

import stunet
from stunet import extensions, files, tensorfiles

Arrays = Mapping[str, np.ndarray]


class MeasurementCache:
    """Stores arrays under a name and a description of everything that they depend on.

    The description includes this package's source, and that of users' own objects. After any change
    of the source, earlier arrays are not found. Files appear only when they are complete, so a
    killed process loses only the batch that it was measuring.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def read(self, name: str, *depends_on: object) -> dict[str, np.ndarray] | None:
        """Returns the arrays that `write` stored under the same arguments, or None without any."""
        try:
            return load_file(self._file(name, depends_on))
        except (OSError, SafetensorError):
            return None

    def write(self, arrays: Arrays, name: str, *depends_on: object) -> None:
        """Stores arrays, which `read` finds again by the other arguments.

        Args:
            arrays: arrays to store, by name.
            name: what the arrays are.
            *depends_on: what they were computed from: values of JSON, and other arrays.
        """
        arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        with (
            files.full_disk_explained(self.directory, "finished batches are kept"),
            files.atomic(self._file(name, depends_on)) as partial,
        ):
            tensorfiles.write(partial, arrays)

    def _file(self, name: str, depends_on: tuple[object, ...]) -> Path:
        digest = hashlib.sha256(_source() + extensions.digest())
        for part in depends_on:
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype} {part.shape}\n".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
            else:
                digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
        return self.directory / f"{name}-{digest.hexdigest()[:16]}.safetensors"


@functools.cache
def _source() -> bytes:
    """Returns a digest of this package's source."""
    digest, root = hashlib.sha256(), Path(stunet.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
    return digest.digest()
