"""A server that forks processes which run `stunet COMMAND ...`, ready to be disturbed.

It imports everything once, so that a process begins to work within 30 ms instead of 3 s. It reads a
request from each line of its standard input and answers with a line. `processes.py` talks to it.

Nothing here may start a backend of JAX: its threads would not survive the fork.
"""

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
import time

_now = time.time
# Seconds by which the clock of this process is wrong.
_skew = 0.0


def _skewed() -> float:
    return _now() + _skew


# Before stunet is imported, which may keep the function.
time.time = _skewed

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from stunet import cli  # noqa: E402
from stunet.commands import evaluate, export, inflate, plan, prepare, report, sample  # noqa: E402, F401
from stunet.data import clips, media, sources  # noqa: E402, F401
from stunet.generate import tasks  # noqa: E402, F401
from stunet.nn.stunet import STUNet  # noqa: E402
from stunet.train import loop, parts  # noqa: E402

# Of <sys/prctl.h>: the signal that a process gets when the process that made it ends.
_PR_SET_PDEATHSIG = 1


class OneLayer(STUNet):
    """Stands in for the network. No fault depends on it, and tracing the real one takes seconds."""

    @nn.compact
    def __call__(self, x, time, text=None, text_mask=None, low_res_time=None):
        hidden = nn.silu(nn.Dense(64)(x) + time[:, None, None, None, None])
        return nn.Dense(self.out_channels)(hidden).astype(jnp.float32)


def main() -> int:
    """Answers requests until one of them makes this process a child, which runs the command.

    Returns:
        The exit status of the command in a child; 0 at the end of the requests.
    """
    for line in sys.stdin:
        request = json.loads(line)
        if "reap" in request:
            _, status, used = os.wait4(request["reap"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status), "kilobytes": used.ru_maxrss}
        else:
            pid = os.fork()
            if pid == 0:
                return _run(**request)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    return 0


def _run(
    words: list[str],
    log: str,
    network: bool,
    skew: float,
    hangs_at: int | None,
    limits: dict[str, int],
    ignored: list[int],
) -> int:
    """Runs a command in this process.

    Args:
        words: arguments of `stunet`.
        log: file that takes standard output and standard error.
        network: True for the network that the config asks for; False for `OneLayer`.
        skew: seconds by which the clock is wrong.
        hangs_at: number of the batch at which the data source blocks for ever.
        limits: limits of resources by name, such as {"FSIZE": 4096}.
        ignored: signals that the process ignores from its start, as under `nohup`.
    """
    global _skew
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for opened, number in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(opened, number)
    # A process that is found hanging is asked where it is.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    _skew = skew
    if not network:
        parts.STUNet = OneLayer
    if hangs_at is not None:
        _hang_at(hangs_at)
    return cli.main(words)


def _hang_at(number: int) -> None:
    """Makes the data source block for ever in the batch of this number."""
    shard_batch, seen = loop.meshes.shard_batch, []

    def hanging(batch, mesh):
        seen.append(None)
        while len(seen) >= number:
            time.sleep(3600)
        return shard_batch(batch, mesh)

    loop.meshes.shard_batch = hanging


if __name__ == "__main__":
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.exit(main())
