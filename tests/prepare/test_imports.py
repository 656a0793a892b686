"""Processes that decode videos start without the libraries that train networks."""

import subprocess
import sys


def test_a_worker_loads_no_jax():
    loaded = "import sys, stunet.prepare.shards, stunet.prepare.engines; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert not {"jax", "flax", "orbax", "ray"} & set(done.stdout.split())
