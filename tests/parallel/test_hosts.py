"""Settings of several processes, tested in one: flags, schedulers, and the rows each one reads.

Real processes are tested in tests/launch and tests/train/test_elastic.py.
"""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stunet.errors import UserError
from stunet.parallel import hosts


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("10.0.0.2:8476", 2, None), "belong together; add --process$"),
        ((None, 2, None), "belong together; add --coordinator and --process$"),
        (("10.0.0.2", 2, 0), "'10.0.0.2', which is not HOST:PORT"),
        (("10.0.0.2:port", 2, 0), "which is not HOST:PORT"),
        (("10.0.0.2:8476", 2, 2), "--process is 2 and --processes 2; processes are numbered from"),
        (("10.0.0.2:8476", 0, 0), "--process is 0 and --processes 0"),
    ],
)
def test_flags_that_do_not_fit_together(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        hosts.join(*flags)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        (SLURM | {"SLURM_NTASKS": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
    ids=["laptop", "one task", "two tasks", "pod without a job"],
)
def test_schedulers_are_joined_where_they_started_several(monkeypatch, environment, several):
    asked = []
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *a, **_: asked.append(a))
    monkeypatch.setattr(hosts.jax.config, "update", lambda *_: None)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    hosts.join()
    # No argument is given, because JAX reads them from the scheduler.
    assert asked == ([(None, None, None)] if several else [])
    hosts.join(processes=1)
    assert len(asked) == several


@dataclasses.dataclass(frozen=True)
class Chip:
    id: int
    process_index: int
    platform: str = "cpu"


def rows(shape: dict[str, int], of_process, batch_size: int) -> list[tuple[int, ...]]:
    """Returns the rows that each process reads, if device i belongs to process `of_process(i)`."""
    extents = tuple(shape.values())
    devices = [Chip(i, of_process(i)) for i in range(int(np.prod(extents)))]
    mesh = Mesh(np.array(devices, object).reshape(extents), tuple(shape))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    processes = sorted({d.process_index for d in devices})
    return [hosts.batch_rows(sharding, batch_size, p) for p in processes]


def test_every_process_reads_its_rows():
    assert rows({"data": 4}, lambda i: i // 2, 8) == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_processes_that_hold_parts_of_the_same_clips_read_the_same_rows():
    # Each process has two of the eight chips, so the four chips of a clip belong to two processes.
    split = rows({"data": 2, "context": 4}, lambda i: i // 2, 4)
    assert split == [(0, 1), (0, 1), (2, 3), (2, 3)]
    # All processes have a part of all clips.
    assert rows({"data": 1, "context": 4}, lambda i: i // 2, 2) == [(0, 1), (0, 1)]


def test_a_process_reads_the_rows_of_its_devices_where_they_are_not_neighbours():
    # Tiles of 2 x 2 chips in a row-major mesh, as on TPU v5e.
    assert rows({"data": 8}, lambda i: i // 2 % 2, 8) == [(0, 1, 4, 5), (2, 3, 6, 7)]


@pytest.mark.parametrize(
    ("message", "is_lost"),
    [
        (
            "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read "
            "error [127.0.0.1]:28299: Connection reset by peer",
            True,
        ),
        (
            "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:553] "
            "Connection closed by peer [127.0.0.1]:3999",
            True,
        ),
        (
            "INTERNAL: NCCL operation ncclCommInitRankConfig failed: remote process exited or "
            "there was a network error",
            True,
        ),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes", False),
    ],
)
def test_errors_of_collectives_that_mean_a_lost_process(message, is_lost):
    for kind in (jax.errors.JaxRuntimeError, ValueError):
        assert hosts._is_lost_connection(kind(message)) == is_lost
    assert not hosts._is_lost_connection(OSError(message))
    assert not hosts._is_lost_connection(ValueError("a row says: Connection reset by peer"))
