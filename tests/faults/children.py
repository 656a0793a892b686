"""A server that forks processes which run `stunet COMMAND ...`, ready to be disturbed.

It imports everything once, so that a process begins to work within 30 ms instead of 3 s. It reads a
request from each line of its standard input and answers with a line. `processes.py` talks to it.

Nothing here may start a backend of JAX: its threads would not survive the fork.
"""

import ctypes
import faulthandler
import json
import os
import re
import resource
import signal
import sys
import time
import traceback

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
import sklearn.datasets  # noqa: E402, F401

from stunet import cli  # noqa: E402
from stunet.commands import evaluate, export, inflate, plan, prepare, sample  # noqa: E402, F401
from stunet.data import clips, media, sources  # noqa: E402, F401
from stunet.doctor import installation, workdir  # noqa: E402, F401
from stunet.evaluate import in_training  # noqa: E402, F401
from stunet.export import formats  # noqa: E402, F401
from stunet.generate import model, tasks, text, video  # noqa: E402, F401
from stunet.nn.stunet import STUNet  # noqa: E402
from stunet.nn.text import checkpoint, tokenizer  # noqa: E402, F401
from stunet.parallel import mesh as meshes  # noqa: E402
from stunet.report import report  # noqa: E402, F401
from stunet.train import loop, parts  # noqa: E402, F401
from stunet.train.measured import preview  # noqa: E402

# Of <sys/prctl.h>: the signal that a process gets when the process that made it ends.
_PR_SET_PDEATHSIG = 1


class OneLayer(STUNet):
    """Stands in for the network. No fault depends on it, and tracing the real one takes seconds."""

    @nn.compact
    def __call__(self, x, time, text=None, text_mask=None, low_res_time=None):
        hidden = nn.silu(nn.Dense(64, name="conv_in")(x) + time[:, None, None, None, None])
        return nn.Dense(self.out_channels)(hidden).astype(jnp.float32)


def grey_sampler(denoiser, settings, t_start=1.0):
    """Stands in for `make_sampler`, which compiles for seconds. Every clip is grey."""

    def grey(params, text, *_, **__):
        for _ in range(settings.steps):
            yield jnp.zeros((len(text), *denoiser.clip.shape))

    return grey


def main() -> int:
    """Answers requests until one of them makes this process a child, which runs commands.

    Returns:
        The exit status of the last command in a child; 0 at the end of the requests.
    """
    for line in sys.stdin:
        request = json.loads(line)
        if "reap" in request:
            _, status, used = os.wait4(request["reap"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status), "kilobytes": used.ru_maxrss}
        else:
            pid = os.fork()
            if pid == 0:
                return _child(**request)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    return 0


def _child(
    commands: list[list[str]],
    log: str,
    results: str | None,
    real: bool,
    skew: float,
    hangs_at: int | None,
    limits: dict[str, int],
) -> int:
    """Runs commands in this process.

    Args:
        commands: arguments of `stunet`, for each command.
        log: file that takes standard output and standard error.
        results: file that takes a line for each command (`_run_all`); None for a process of one
            command, which ends as a user's does.
        real: True for the network that the config asks for; False for `OneLayer`.
        skew: seconds by which the clock is wrong.
        hangs_at: number of the batch at which the data source blocks for ever.
        limits: limits of resources by name, such as {"FSIZE": 4096}.
    """
    global _skew
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # Ctrl-C in the terminal of the tests is not for this process.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for opened, number in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(opened, number)
    # A process that is found hanging is asked where it is.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    _skew = skew
    if not real:
        parts.STUNet = OneLayer
        for module in (model, preview, text, video):
            module.make_sampler = grey_sampler
    if hangs_at is not None:
        _hang_at(hangs_at)
    if results is None:
        (words,) = commands
        sys.argv[1:] = words
        cli.main_process()
    _run_all(commands, log, results)
    return 0


def _run_all(commands: list[list[str]], log: str, results: str) -> None:
    """Runs commands one after the other.

    After each one it writes a line of JSON with its exit status, what it printed, its seconds, and
    the most memory that the process held meanwhile.
    """
    for words in commands:
        os.truncate(log, 0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Forget the most memory so far.
        begun = time.monotonic()
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        with open("/proc/self/status") as file:
            kilobytes = int(re.search(r"VmHWM:\s*(\d+)", file.read())[1])
        with open(log, errors="replace") as file:
            printed = file.read()
        line = dict(
            status=status,
            output=printed,
            seconds=time.monotonic() - begun,
            kilobytes=kilobytes,
        )
        with open(results, "a") as file:
            file.write(json.dumps(line) + "\n")


def _hang_at(number: int) -> None:
    """Makes the data source block for ever in the batch of this number."""
    shard_batch, seen = meshes.shard_batch, []

    def hanging(batch, mesh):
        seen.append(None)
        while len(seen) >= number:
            time.sleep(3600)
        return shard_batch(batch, mesh)

    meshes.shard_batch = hanging


if __name__ == "__main__":
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.exit(main())
