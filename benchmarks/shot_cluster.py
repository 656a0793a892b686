"""Prepares videos on a Ray cluster while its processes are killed, and compares every byte.

    pip install 'stunet[cluster]'
    python benchmarks/shot_collection.py runs/collection --videos 1000
    python benchmarks/shot_cluster.py runs/collection/videos/videos.jsonl runs/cluster

The cluster has a head and two further nodes, each with its own processes on this machine. Three
are killed: a process that works on a part (after a quarter of the parts), a node (after half of
them) and the command itself (after three quarters). Then the same command runs again. One process
does the same work, and all files are compared. Printed are the rates too, and the memory of the
command between the kills.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shot_collection import digests, memory

OPTIONS = ["--side", "48", "--fps", "12", "--min-seconds", "0.5", "--cut-threshold", "0"]
# Memory of each node for objects. Only a few words go through it.
_STORE = 80 * 2**20
# Seconds until a node must be ready.
_PATIENCE = 300


def children(process: int) -> Iterator[tuple[int, str]]:
    """Yields number and command line of all processes below a process."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    below = {process}
    # A process has a larger number than its parent, unless the numbers have begun again.
    for number, parent, command in sorted(rows, key=lambda row: int(row[0])):
        if int(parent) in below:
            below.add(int(number))
            yield int(number), command


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def node(words: list[str]) -> Iterator[subprocess.Popen]:
    """Context manager that runs a node of a cluster, which works on one part at a time."""
    ray = shutil.which("ray") or sys.exit("the program ray is not installed")
    options = ["--num-cpus=1", f"--object-store-memory={_STORE}", "--block"]
    command = [sys.executable, ray, "start", *words, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        stop(process)


def wait_for_node(process: subprocess.Popen) -> None:
    """Waits until all of a node's own processes have run for some seconds."""
    began = time.monotonic()
    while sum("agent" in command.lower() for _, command in children(process.pid)) < 2:
        if process.poll() is not None:
            sys.exit(f"a node ended early, with status {process.returncode}")
        if time.monotonic() - began > _PATIENCE:
            sys.exit(
                f"a node is not ready after {_PATIENCE} s; look at /tmp/ray/session_latest/logs"
            )
        time.sleep(1)
    time.sleep(15)


def stop(process: subprocess.Popen) -> None:
    """Kills a process that this program started, and all below it."""
    for number in [number for number, _ in children(process.pid)] + [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


def busy(process: subprocess.Popen) -> int:
    """Returns the number of a process of Ray that works on a part, below a node's process."""
    while True:
        for number, command in children(process.pid):
            if command.startswith("ray::_events"):
                return number
        time.sleep(0.1)


def done(output: Path) -> int:
    return len(list(output.glob("shards/*.json")))


def watch(process: subprocess.Popen, is_over: Callable[[], bool]) -> str:
    """Waits until `is_over`, and returns the most memory that a process had meanwhile, in words."""
    most = 0
    while not is_over():
        if process.poll() is not None and not is_over():
            sys.exit(f"the command ended early, with status {process.returncode}")
        most = max(most, memory(process.pid))
        time.sleep(0.2)
    return f"{most / 2**20:,.0f} MiB"


def rate(output: Path, began: float) -> str:
    """Returns words on how fast a set of shots was made."""
    manifests = [json.loads(file.read_text()) for file in output.glob("shards/*.json")]
    videos = sum(len(manifest["videos"]) for manifest in manifests)
    seconds = time.monotonic() - began
    return f"{videos:,} videos in {seconds:,.0f} s, {videos / seconds:,.1f} videos/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder or list of videos")
    parser.add_argument("place", type=Path, help="directory for the sets of shots")
    parsed = parser.parse_args()
    prepare = [sys.executable, "-m", "stunet", "prepare", str(parsed.videos)]
    one, many = parsed.place / "one", parsed.place / "many"
    began = time.monotonic()
    subprocess.run([*prepare, str(one), *OPTIONS, "--workers", "1"], check=True)
    print(f"one process: {rate(one, began)}", flush=True)
    parts, port = done(one), free_port()
    address = f"127.0.0.1:{port}"
    # Three nodes that start on one machine are slow.
    os.environ |= {"RAY_agent_register_timeout_ms": "300000", "RAY_AUTH_MODE": "disabled"}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [*prepare, str(many), *OPTIONS, "--engine", "ray", "--address", address]
    head = ["--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    with node(head) as first:
        wait_for_node(first)
        with node([f"--address={address}"]) as second, node([f"--address={address}"]) as third:
            wait_for_node(second)
            wait_for_node(third)
            began = time.monotonic()
            with subprocess.Popen(command) as process:
                memories = [watch(process, lambda: done(many) >= parts // 4)]
                os.kill(busy(first), signal.SIGKILL)
                print(f"killed a worker with {done(many)} of {parts} parts done", flush=True)
                memories.append(watch(process, lambda: done(many) >= parts // 2))
                stop(second)
                print(f"killed a node with {done(many)} of {parts} parts done", flush=True)
                memories.append(watch(process, lambda: done(many) >= 3 * parts // 4))
                process.kill()
                print(f"killed the command with {done(many)} of {parts} parts done", flush=True)
            with subprocess.Popen(command) as process:
                memories.append(watch(process, lambda: process.poll() is not None))
                if process.returncode:
                    sys.exit(f"the command ended with status {process.returncode}")
            print(f"cluster: {rate(many, began)}; memory at most {', '.join(memories)}", flush=True)
    left, right = digests(one), digests(many)
    print(f"{len(left):,} files are {'equal' if left == right else 'NOT equal'}")


if __name__ == "__main__":
    main()
