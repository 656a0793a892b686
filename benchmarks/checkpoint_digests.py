"""Measures what verifying checkpoints costs: seconds of saving and restoring, and those of digests.

    python benchmarks/checkpoint_digests.py --gib 2 --dir /tmp/digests

The state has float32 parameters, their average and two moments, of random numbers. Each line has
wall seconds and CPU seconds. The second of two saves is measured, since the first one also loads
libraries and compiles.
"""

import argparse
import contextlib
import pathlib
import shutil
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from absl import logging

from stunet.train.saved import digests
from stunet.train.saved.checkpoints import Checkpoints, items
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState

# Bytes of each array: as a 3x3 convolution from 1024 to 2048 features.
ARRAY = 4 * 9 * 1024 * 2048


def make_state(step: int, gib: float) -> TrainState:
    """Returns a state of about `gib` GiB."""
    arrays = max(1, round(gib * 2**30 / 4 / ARRAY))

    def tree(seed: int) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), arrays)
        shape = (3, 3, 1024, 2048)
        return {str(i): jax.random.normal(key, shape) for i, key in enumerate(keys)}

    moments = {"mu": tree(2), "nu": tree(3)}
    return TrainState(jnp.int32(step), tree(0), {}, tree(1), moments)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Context manager that prints the seconds that its block takes."""
    wall, cpu = time.monotonic(), time.process_time()
    yield
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{what:48}{wall:8.2f} s{cpu:8.2f} s of CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=2.0, help="size of the state in GiB")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="directory to write into")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    state = jax.block_until_ready(make_state(1, arguments.gib))
    leaves = jax.tree.leaves(state)
    print(f"{len(leaves)} arrays, {sum(leaf.nbytes for leaf in leaves) / 2**30:.2f} GiB")
    with Checkpoints(arguments.dir, Retention(1)) as checkpoints:
        checkpoints.save(state, {"global_next_index": 0})
        checkpoints.wait()
        state = state.replace(step=jnp.int32(2))
        with timed("digests alone"):
            digests.of_arrays(items(state))
        with timed("save until training may go on, with digests"):
            checkpoints.save(state, {"global_next_index": 0})
        with timed("... until it is on disk"):
            checkpoints.wait()
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    del state, leaves
    with Checkpoints(arguments.dir) as checkpoints, timed("restore, with digests"):
        checkpoints.restore(abstract)
    shutil.rmtree(arguments.dir)


if __name__ == "__main__":
    main()
