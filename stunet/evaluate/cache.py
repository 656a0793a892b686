"""What has been measured of a batch of clips, kept on disk, so that it is not measured again."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

import stunet
from stunet import files, tensorfiles

Arrays = Mapping[str, np.ndarray]


class MeasurementCache:
    """Arrays by a description of all that they depend on.

    The program is part of it: after any change of this package's source nothing that was kept
    before is found. A file appears whole or not at all, so that a kill loses the batch that was
    being measured and no other.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def read(self, name: str, *depends_on: object) -> dict[str, np.ndarray] | None:
        """What was kept under a name and a description, if it was."""
        try:
            return load_file(self._file(name, depends_on))
        except (OSError, SafetensorError):
            return None

    def write(self, arrays: Arrays, name: str, *depends_on: object) -> None:
        """Keeps arrays under a name and a description: JSON values, and arrays."""
        arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        remedy = "what was measured before is kept: make room and run the command again"
        with (
            files.full_disk_explained(self.directory, remedy),
            files.atomic(self._file(name, depends_on)) as partial,
        ):
            tensorfiles.write(partial, arrays)

    def _file(self, name: str, depends_on: tuple[object, ...]) -> Path:
        digest = hashlib.sha256(_source())
        for part in depends_on:
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype} {part.shape}\n".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
            else:
                digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
        return self.directory / f"{name}-{digest.hexdigest()[:16]}.safetensors"


@functools.cache
def _source() -> bytes:
    """A digest of this package's source."""
    digest, root = hashlib.sha256(), Path(stunet.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\n".encode())
        digest.update(file.read_bytes())
    return digest.digest()
