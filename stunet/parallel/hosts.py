"""Lets several processes train as one: they join, agree to stop, and fail together.

Every process runs the same program over the one mesh of all their devices. Usually there is one
process on each host.
"""

import contextlib
import itertools
import os
import re
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

# Neither has a public name. Orbax reaches for the first in the same way.
from jax._src import distributed
from jax._src.clusters import ClusterEnv, K8sCluster
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stunet.errors import UserError

# A process that has been silent for this long counts as dead, and the others end. JAX's own limit
# is 100 s.
_HEARTBEAT_TIMEOUT_SECONDS = 30

# Processes that are alive may take long to begin: one may wait for its disk or its data.
_LATE_MILLISECONDS = 3_600_000

# What errors of collectives say when a process at the other end is gone: gloo's and NCCL's.
_LOST = re.compile(
    r"[A-Z_]+: .*([Cc]onnection (reset|closed|refused)|[Bb]roken pipe|[Ss]ocket closed"
    r"|remote process exited|Timed out waiting)",
    re.DOTALL,
)

# Seconds between two looks at whether another process has failed, and the key that says so.
_LOOK_SECONDS = 1.0
_FAILURE = "stunet/failure"

# Number of each call of `first_text`, which is the same in all processes.
_TEXTS = itertools.count()


def join(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins this process with the other processes of the run, if there are any.

    Call this function before anything else uses JAX's devices.

    Without arguments, JAX detects the other processes itself: on TPU pods, GKE and Kubernetes, and
    under SLURM and Open MPI. If JAX finds at most one process, or if `processes` is 1, this process
    contacts no other.

    Args:
        coordinator: HOST:PORT at which process 0 listens, and which all processes can reach.
        processes: number of processes.
        process: number of this process, from 0.

    Raises:
        UserError: the arguments do not fit together, or JAX cannot join the other processes. (If
            the other processes do not join within 5 minutes, JAX ends this process.)
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    if all(value is None for value in given.values()):
        if not _several_in_environment():
            return
    elif processes != 1 or process or coordinator:
        _check(given)
    if processes == 1:
        return
    # JAX's own handler would take SIGTERM away from the train loop, and know nothing of SIGINT.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot join the other processes ({_first_line(error)}); "
            "to train in this process alone, add --processes 1"
        ) from error


def _check(given: dict[str, str | int | None]) -> None:
    missing = [flag for flag, value in given.items() if value is None]
    if missing:
        raise UserError(f"{', '.join(given)} belong together; add {' and '.join(missing)}")
    coordinator, processes, process = given.values()
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator is {coordinator!r}, which is not HOST:PORT, such as 10.0.0.2:8476"
        )
    if processes < 1 or not 0 <= process < processes:
        raise UserError(
            f"--process is {process} and --processes {processes}; processes are numbered from 0 to "
            "--processes - 1"
        )


def _several_in_environment() -> bool:
    """Tells whether a scheduler has started this process as one of several.

    `jax.distributed.initialize` does not check this. If it ran in a process that is alone under
    SLURM, it would hide all GPUs but one from the process.
    """
    for cluster in ClusterEnv._cluster_types:
        # A pod that is not part of an indexed job, such as that of a notebook, has no number.
        lone_pod = cluster is K8sCluster and "JOB_COMPLETION_INDEX" not in os.environ
        if not cluster.opt_in_only_method and not lone_pod and cluster.is_env_present():
            return cluster.get_process_count() > 1
    return False


def is_first() -> bool:
    """Tells whether this is the process that writes files."""
    return jax.process_index() == 0


def batch_rows(
    sharding: NamedSharding, batch_size: int, process: int | None = None
) -> tuple[int, ...]:
    """Returns the rows of a batch that this process has to read, ascending.

    These are the rows that the process's devices hold. They need not be consecutive, since a mesh
    is arranged by the links between chips and not by host. If devices of several processes hold
    parts of the same clip, each of these processes reads that clip.

    Args:
        sharding: sharding of an array whose first axis is the batch.
        batch_size: number of rows in the whole batch.
        process: number of the process; None for this one.
    """
    process = jax.process_index() if process is None else process
    rows = set()
    for device, (held,) in sharding.devices_indices_map((batch_size,)).items():
        if device.process_index == process:
            rows.update(range(*held.indices(batch_size)))
    return tuple(sorted(rows))


def wait_for_all(name: str) -> None:
    """Waits until every process has called this function with the same name.

    Args:
        name: name of this place in the program, the same in every process.
    """
    if jax.process_count() > 1:
        # A collective will not do: on CPUs it gives up when one process is late by 30 s.
        client = distributed.global_state.client
        client.wait_at_barrier(f"stunet/{name}", timeout_in_ms=_LATE_MILLISECONDS)


def first_text(text: str) -> str:
    """Returns, in every process, the text of the first process whose text is not empty.

    If the texts of all processes are empty, the result is "".

    Args:
        text: this process's own text; may be empty.
    """
    if jax.process_count() == 1:
        return text
    client, name = distributed.global_state.client, f"text {next(_TEXTS)}"
    client.key_value_set(f"stunet/{name}/{jax.process_index()}", text)
    wait_for_all(name)
    said = [client.key_value_try_get(f"stunet/{name}/{i}") for i in range(jax.process_count())]
    return next(filter(None, said), "")


def gather(array: jax.Array) -> np.ndarray:
    """Copies an array from all devices to the host of every process. All processes must call it."""
    if not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


class Agreement:
    """Lets all processes agree, once in each update, on whether to do something, such as to stop.

    Every process gets the same answer: True if any process wants to do it.

    Args:
        mesh: the devices of all processes.
        lag: with several processes, each call returns the answer to the question of `lag` calls
            earlier, and the first `lag` calls return False. Use the number of updates that are
            queued on the devices, so that no process waits for the devices.
    """

    def __init__(self, mesh: Mesh, lag: int):
        self._lag = lag
        self._answers = deque()
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, is_wanted: bool) -> bool:
        """Agrees with the other processes on whether to do something, such as to stop.

        Args:
            is_wanted: True if this process wants to do it.
        """
        if jax.process_count() == 1:
            return is_wanted
        wishes = np.full(jax.local_device_count(), is_wanted)
        self._answers.append(
            self._any(jax.make_array_from_process_local_data(self._sharding, wishes))
        )
        return len(self._answers) > self._lag and bool(self._answers.popleft())


@contextlib.contextmanager
def failing_together(name: str) -> Iterator[None]:
    """Context manager in which an exception in one process ends all processes with status 1.

    Every process prints which process failed. With a single process, exceptions pass through.

    Outside this context, the other processes would wait for the failed process in their next
    collective, and the failed process would wait for them in JAX's shutdown at exit.

    Args:
        name: name of the program, with which messages begin.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    client, over = distributed.global_state.client, threading.Event()
    # The thread asks again and again, because one that waited in C++ could not be ended.
    watcher = threading.Thread(target=_end_with_others, args=(name, client, over), daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        over.set()
        if isinstance(error, UserError):
            print(f"{name}: {error}", file=sys.stderr)
        elif _is_lost_connection(error):
            print(
                f"{name}: another process no longer answers: it was killed, it failed, or its host "
                f"or network is gone ({_first_line(error)}); start all processes again to continue",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        tell_failure(_first_line(error))
        _end()
    over.set()
    watcher.join()


def tell_failure(reason: str) -> None:
    """Tells the other processes, if there are any, that this process fails. They then end too.

    Args:
        reason: a sentence that says why.
    """
    if not jax.distributed.is_initialized():
        return
    client = distributed.global_state.client
    with contextlib.suppress(Exception):  # Another failed first, or the coordinator is gone.
        client.key_value_set(_FAILURE, f"process {jax.process_index()} failed: {reason}")
    if is_first():
        # The coordinator lives in this process: the others must have time to read the message.
        time.sleep(2 * _LOOK_SECONDS)


def _is_lost_connection(error: BaseException) -> bool:
    """Tells whether a collective failed because another process is gone."""
    # XLA's errors arrive as either. They begin with a code, such as "UNKNOWN: ".
    from_xla = isinstance(error, (jax.errors.JaxRuntimeError, ValueError))
    return from_xla and bool(_LOST.match(str(error)))


def _end_with_others(name: str, client, over: threading.Event) -> None:
    while not over.wait(_LOOK_SECONDS):
        try:
            failure = client.key_value_try_get(_FAILURE)
        except Exception:
            continue  # No process has failed, or the coordinator is gone, which JAX deals with.
        if failure.startswith(f"process {jax.process_index()} "):
            return  # It ends by itself.
        print(f"{name}: {failure}", file=sys.stderr)
        # End after the process that failed, so that whoever started them sees which came first.
        time.sleep(3 * _LOOK_SECONDS)
        _end()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _end() -> None:
    """Ends this process without JAX's shutdown, which waits for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
