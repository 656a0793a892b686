"""Starts processes that run `stunet COMMAND ...`, disturbs them, and says how they ended."""

import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

# A process that takes longer has hung: an undisturbed one takes 2 s on an idle machine.
PATIENCE_SECONDS = 180

_CHILDREN = pathlib.Path(__file__).with_name("children.py")
# What no user should see, whatever happens.
_UNSEEMLY = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error")


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: exit status; minus the number of the signal that ended it; None: it hung, and was
            killed.
        output: what it printed to standard output and standard error. If it hung, then also the
            stack of each of its threads.
        seconds: seconds from its start to its end.
        kilobytes: most memory that it held.
    """

    status: int | None
    output: str
    seconds: float
    kilobytes: int

    @property
    def hung(self) -> bool:
        return self.status is None

    @property
    def unseemly(self) -> bool:
        """Tells whether the process printed a traceback."""
        return any(words in self.output for words in _UNSEEMLY)

    @property
    def last_line(self) -> str:
        return next(reversed(self.output.strip().splitlines()), "")


class Process:
    """A process that runs a command. `Server.start` makes it.

    Attributes:
        pid: number of the process.
        log: file with what it has printed.
    """

    def __init__(self, server: "Server", pid: int, log: pathlib.Path):
        self.pid, self.log = pid, log
        self._server, self._started, self._pidfd = server, time.monotonic(), os.pidfd_open(pid)

    def signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        signal.pidfd_send_signal(self._pidfd, number) if not self.has_ended() else None

    def has_ended(self, seconds: float = 0) -> bool:
        """Tells whether the process has ended, or ends within `seconds`."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def wait(self, patience: float = PATIENCE_SECONDS) -> Ended:
        """Waits for the end of the process, and kills it if it hangs for longer than `patience`."""
        hung = not self.has_ended(patience)
        if hung:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGUSR1)  # It prints where it is.
            self.has_ended(2)
            self.signal(signal.SIGKILL)
        seconds = time.monotonic() - self._started
        told = self._server.ask(reap=self.pid)
        os.close(self._pidfd)
        output = self.log.read_text(errors="replace")
        self.log.unlink()
        return Ended(None if hung else told["status"], output, seconds, told["kilobytes"])


class Server:
    """Forks processes. A context manager, at whose end no more can be started.

    Args:
        scratch: directory for the output of processes.
    """

    def __init__(self, scratch: pathlib.Path):
        self._scratch = scratch
        self._server = subprocess.Popen(
            [sys.executable, str(_CHILDREN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(
        self,
        *words: object,
        network: bool = False,
        skew: float = 0.0,
        hangs_at: int | None = None,
        limits: dict[str, int] | None = None,
        ignored: Sequence[int] = (),
    ) -> Process:
        """Starts `stunet WORDS ...`. For the other arguments see `children._run`."""
        descriptor, log = tempfile.mkstemp(dir=self._scratch, suffix=".log")
        os.close(descriptor)
        answer = self.ask(
            words=[str(word) for word in words],
            log=log,
            network=network,
            skew=skew,
            hangs_at=hangs_at,
            limits=limits or {},
            ignored=list(ignored),
        )
        return Process(self, answer["pid"], pathlib.Path(log))

    def run(self, *words: object, **how) -> Ended:
        """Runs `stunet WORDS ...` to its end."""
        return self.start(*words, **how).wait()

    def ask(self, **request) -> dict[str, int]:
        """Sends the server a request, and returns its answer."""
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())
