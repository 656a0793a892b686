"""Runs the work on parts on the machines of a Ray cluster, as an engine (`engines`).

All machines need this package, and see the videos and the output at the same paths or addresses.
Ray sends them the work and the parts, pickled, as `multiprocessing` does on one machine. Logins to
buckets are not sent: each machine has its own, in the environment of its `ray start`.
"""

import bisect
import collections
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from stunet.errors import UserError
from stunet.prepare.engines import Engine, Work, processes

# Parts that are handed to Ray for each processor of the cluster, so that none waits for the next.
_PARTS_EACH = 2
# Seconds after which the engine looks for parts to do again, and for machines that have joined.
_PAUSE = 1.0
# Seconds to wait until a cluster answers.
_PATIENCE = 10
# A part that is lost this often ends the command. After the first loss it waits for 1 s, then for
# 2, 4 and so on: Ray notices late that a machine has gone, and hands it parts until then.
_MOST_LOST = 8


def ray_cluster(address: str | None = None) -> Engine:
    """Returns an engine that runs the work on a Ray cluster.

    Machines may join and leave meanwhile. A part whose process or machine ends is done again.

    Args:
        address: address of the cluster, such as "10.0.0.1:6379" or "ray://10.0.0.1:10001". None
            takes the cluster that the environment variable RAY_ADDRESS names, and otherwise starts
            one on this machine, which ends with the command.

    Raises:
        UserError: Ray is not installed. The engine raises it if there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed; run: pip install 'stunet[cluster]'") from None

    def run(work: Work, parts: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        # Ray's own default would wait for a cluster on this machine that was killed.
        place = address or os.environ.get("RAY_ADDRESS") or "local"
        _check_there(place)
        ray.init(place, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield from _run(ray, work, parts)
        finally:
            ray.shutdown()

    return run


def _check_there(address: str) -> None:
    """Raises a UserError if nothing answers at an address. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        if address not in ("auto", "local"):
            raise UserError(f"{address!r} is no address of a Ray cluster, such as 10.0.0.1:6379")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"there is no Ray cluster at {address} ({error}); correct the address, or start one "
            "with `ray start --head`"
        ) from error


def _run(ray, work: Work, parts: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Keeps the processors of a cluster busy, and yields what the work yields."""
    remote = ray.remote(num_cpus=1, max_retries=0)(_events).options(num_returns="streaming")
    numbered = enumerate(parts)
    waiting: list[tuple[float, int, Any]] = []  # parts that were lost, the first to do first
    lost: collections.Counter[int] = collections.Counter()
    running: dict[Any, tuple[int, Any]] = {}
    while True:
        most = _PARTS_EACH * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while len(running) < most:
            if waiting and waiting[0][0] <= time.monotonic():
                task = waiting.pop(0)[1:]
            elif (task := next(numbered, None)) is None:
                break
            running[remote.remote(work, task[1])] = task
        if not running and not waiting:
            return
        if not running:
            time.sleep(_PAUSE)
            continue
        for stream in ray.wait(list(running), timeout=_PAUSE)[0]:
            number, part = running[stream]
            try:
                event = ray.get(next(stream))
            except StopIteration:
                del running[stream]
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                del running[stream]
                bisect.insort(waiting, (time.monotonic() + 2 ** lost[number], number, part))
                lost[number] += 1
                if lost[number] == _MOST_LOST:
                    reason = " ".join(str(error).split())
                    raise UserError(
                        f"the cluster lost a part {_MOST_LOST} times ({reason[:200]}); look at "
                        "Ray's logs, and run the same command again"
                    ) from error
            else:
                yield part, event


def _events(work: Work, part: Any) -> Iterator[Any]:
    """Yields what the work yields, on one of the machines.

    The work has a process of its own. If a file crashes a decoder, Ray's process goes on and knows
    which file that was. So whatever is lost otherwise is the fault of no file.
    """
    for _, event in processes(1)(work, [part]):
        yield event
