"""`damage_for_two.py DIR KIND` damages what the second of two processes has written, and restores.

KIND is "flipped" or "truncated". Both processes print what they restore.
"""

import argparse
import json
import pathlib

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stunet.parallel import hosts
from stunet.train.saved.checkpoint_files import verify
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState


def main(workdir: pathlib.Path, kind: str) -> None:
    mesh = Mesh(np.array(jax.devices()), ("all",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["all"], []))

    def put(x, sharding):
        return jax.make_array_from_callback(np.shape(x), sharding, lambda index: x[index])

    def state(step: int) -> TrainState:
        kernel = np.random.default_rng(step).standard_normal((64, 300)).astype(np.float32)
        params = {"kernel": put(kernel, split), "bias": put(kernel[0], whole)}
        return TrainState(put(np.int32(step), whole), params, {}, params, {})

    with Checkpoints(workdir, Retention(2)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), {"global_next_index": step})
            checkpoints.wait()
    hosts.wait_for_all("saved")
    if not hosts.is_first():
        written = (workdir / "checkpoints" / "2" / "train").glob("ocdbt.process_1/d/*")
        file = max(written, key=lambda file: file.stat().st_size)
        content = bytearray(file.read_bytes())
        if kind == "flipped":
            content[len(content) // 2] ^= 1
        else:
            del content[len(content) // 2 :]
        file.write_bytes(content)
    hosts.wait_for_all("damaged")

    with Checkpoints(workdir, Retention(2)) as checkpoints:
        restored = checkpoints.restore(state(0))
        step, found = int(restored.state.step), restored.state.params["kernel"]
        expected = state(step).params["kernel"]
        same = all(
            np.array_equal(a.data, b.data)
            for a, b in zip(found.addressable_shards, expected.addressable_shards, strict=True)
        )
        checkpoints.save(state(2), {"global_next_index": 2})
        checkpoints.wait()
    hosts.wait_for_all("restored")
    problem = verify(workdir, 2).problem if hosts.is_first() else ""
    print(json.dumps(dict(step=step, same=same, notes=restored.notes, problem=problem)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("kind")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    hosts.join(arguments.coordinator, arguments.processes, arguments.process)
    with hosts.failing_together("damage_for_two"):
        main(arguments.workdir, arguments.kind)
