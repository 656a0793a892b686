"""`noting_examples.py DIRECTORY ARGUMENTS...` runs `stunet ARGUMENTS...` and notes its examples.

For each update, process I appends a line to DIRECTORY/I.jsonl: the digests of the examples on its
devices, by their row in the global batch.
"""

import hashlib
import json
import pathlib
import sys

import jax
import numpy as np

from stunet import cli
from stunet.parallel import mesh as meshes


def rows(batch: dict[str, jax.Array]) -> dict[int, str]:
    """Returns the digest of each example on this process's devices, by row of the global batch."""
    digests = {}
    for key in sorted(batch):
        # Where the mesh splits more than the batch, several devices hold the same rows.
        parts = {s.index[0].start or 0: s.data for s in batch[key].addressable_shards}
        for start, part in parts.items():
            for i, value in enumerate(np.asarray(part)):
                digests.setdefault(start + i, hashlib.sha256()).update(value.tobytes())
    return {row: digest.hexdigest() for row, digest in digests.items()}


def main(directory: str, *arguments: str) -> int:
    directory = pathlib.Path(directory)
    directory.mkdir(exist_ok=True)
    shard_batch = meshes.shard_batch

    def noted(batch, mesh):
        arrays = shard_batch(batch, mesh)
        with (directory / f"{jax.process_index()}.jsonl").open("a") as file:
            file.write(json.dumps(rows(arrays)) + "\n")
        return arrays

    meshes.shard_batch = noted
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
