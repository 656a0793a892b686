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
from collections.abc import Callable, Sequence

# A process that takes longer has hung: an undisturbed one takes 2 s on an idle machine. So has one
# that sleeps for so long. A busy machine keeps no process from running for that long.
PATIENCE_SECONDS = 180
IDLE_SECONDS = 20

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
        # `select.select` takes no descriptor above 1023.
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(1000 * seconds))

    def hangs(
        self,
        patience: float = PATIENCE_SECONDS,
        idle: float = IDLE_SECONDS,
        more: Callable[[], object] = int,
    ) -> bool:
        """Waits for the end of the process. Returns True if it hangs.

        Args:
            patience: seconds that it may take.
            idle: seconds that it may sleep.
            more: what it returns changes while the process gets on, which then may take longer.
        """
        begun = active = time.monotonic()
        seen = more(), self._busy_ticks()
        while not self.has_ended(1):
            now = time.monotonic()
            before, seen = seen, (more(), self._busy_ticks())
            begun = begun if seen[0] == before[0] else now
            active = active if seen[1] == before[1] else now
            if now - begun > patience or now - active > idle:
                return True
        return False

    def _busy_ticks(self) -> int:
        """Returns for how long the process has run on a processor."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def wait(self, idle: float = IDLE_SECONDS) -> Ended:
        """Waits for the end of the process, and kills it if it hangs."""
        return self.end(self.hangs(idle=idle))

    def end(self, hung: bool) -> Ended:
        """Says how the process ended, and kills it if it hangs."""
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

    def start(self, *words: object, **how) -> Process:
        """Starts `stunet WORDS ...`. For the other arguments see `children._child`."""
        return self._start([words], None, **how)

    def run(self, *words: object, **how) -> Ended:
        """Runs `stunet WORDS ...` to its end."""
        return self.start(*words, **how).wait()

    def run_all(self, commands: Sequence[Sequence[object]], **how) -> list[Ended]:
        """Runs many commands in few processes, and says how each one ended.

        A command that ends its process, or hangs, is the last in that process.
        """
        ended: list[Ended] = []
        while len(ended) < len(commands):
            descriptor, name = tempfile.mkstemp(dir=self._scratch, suffix=".jsonl")
            os.close(descriptor)
            results = pathlib.Path(name)
            process = self._start(commands[len(ended) :], name, **how)
            whole = process.end(process.hangs(more=lambda file=results: file.stat().st_size))
            lines = [json.loads(line) for line in results.read_text().splitlines()]
            ended += [Ended(**line) for line in lines]
            results.unlink()
            if len(ended) < len(commands):
                ended.append(whole)
        return ended

    def _start(
        self,
        commands: Sequence[Sequence[object]],
        results: str | None,
        real: bool = False,
        skew: float = 0.0,
        hangs_at: int | None = None,
        limits: dict[str, int] | None = None,
    ) -> Process:
        descriptor, log = tempfile.mkstemp(dir=self._scratch, suffix=".log")
        os.close(descriptor)
        answer = self.ask(
            commands=[[str(word) for word in words] for words in commands],
            log=log,
            results=results,
            real=real,
            skew=skew,
            hangs_at=hangs_at,
            limits=limits or {},
        )
        return Process(self, answer["pid"], pathlib.Path(log))

    def ask(self, **request) -> dict[str, int]:
        """Sends the server a request, and returns its answer."""
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())
