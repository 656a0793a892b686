#!/usr/bin/env python3
"""Runs a command as several processes on this machine, which act as the hosts of a pod do.

    launch/local.py --processes 2 --devices-per-process 4 -- \\
        stunet train --config experiments/quickstart.py --workdir runs/two_hosts

Each process gets `--coordinator HOST:PORT --processes N --process I` after its command and as many
virtual CPU devices as asked for. What process 0 prints goes through; what the others print is shown
if the job fails. SIGTERM and SIGINT (Ctrl-C) are passed on to every process; a second one kills
them, and so does, on Linux, the launcher's own death by SIGKILL. As soon as one process fails the
others are stopped, and it is named; with `--restarts N` all of them are then started again, unless
a signal has ended them, so that a run continues from its latest checkpoint.
"""

import argparse
import ctypes
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

# What the others get to end by themselves when one has failed, and again after SIGTERM.
GRACE_SECONDS = 5
SHOWN_LINES = 30


class Child:
    """One process of the job."""

    def __init__(self, index: int, command: list[str], environment: dict[str, str]):
        self.index = index
        # A file, not a pipe: nobody has to empty it. It goes when the launcher does.
        self.output = None if index == 0 else tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            # Else a Ctrl-C of the terminal's would reach it twice.
            start_new_session=True,
            # Runs after the fork, which is safe: no threads of the launcher are running.
            preexec_fn=die_with(os.getpid()) if sys.platform == "linux" else None,
        )

    def ending(self) -> str:
        code = self.process.returncode
        if code < 0:
            return f"process {self.index} was killed by {signal.Signals(-code).name}"
        return f"process {self.index} exited with status {code}"

    def show(self) -> None:
        """Prints the end of what the process has printed, if it has not been on the terminal."""
        if self.output is None:
            return
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").splitlines()[-SHOWN_LINES:]
        for line in lines:
            print(f"[process {self.index}] {line}", file=sys.stderr)


def main() -> int:
    arguments = parse()
    environment = dict(os.environ)
    environment.setdefault("JAX_PLATFORMS", "cpu")
    environment["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"
    # On CPUs only process 0 would find its programs there, and gloo does not wait longer than 30 s
    # for the others to compile them.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    environment["XLA_FLAGS"] = (
        f"{environment.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={arguments.devices_per_process}"
    )
    for restart in range(arguments.restarts + 1):
        status, final = run(arguments, environment)
        if status == 0 or final or restart == arguments.restarts:
            return status
        say(f"starting again, for time {restart + 1} of {arguments.restarts}")


def run(arguments: argparse.Namespace, environment: dict[str, str]) -> tuple[int, bool]:
    """Runs the job once. Returns its exit status, and whether that is final: a signal was passed on
    to it, or it could not be started."""
    coordinator = f"127.0.0.1:{free_port()}"
    children = []
    seen = forward_signals(children)
    try:
        for index in range(arguments.processes):
            flags = f"--coordinator={coordinator} --processes={arguments.processes}".split()
            command = [*arguments.command, *flags, f"--process={index}"]
            children.append(Child(index, command, environment))
        # One that came while they were being started has not reached all.
        for number in seen[:1]:
            for child in children:
                child.process.send_signal(number)
        pids = ", ".join(f"process {c.index} is {c.process.pid}" for c in children)
        say(f"{pids}; they meet at {coordinator}")
        return watch(children), bool(seen)
    except OSError as error:
        say(f"cannot run {arguments.command[0]!r}: {error.strerror}")
        return 127, True
    finally:
        for child in children:
            child.process.kill()


def die_with(launcher: int) -> Callable[[], None]:
    """Returns what a new process calls to be killed when the launcher ends, however it ends."""
    prctl, set_parent_death_signal = ctypes.CDLL(None).prctl, 1

    def ask() -> None:
        prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != launcher:  # It has ended before it was asked for.
            os._exit(1)

    return ask


def watch(children: list[Child]) -> int:
    """Waits for all, and stops the others once one has failed. Returns the job's exit status."""
    ended = queue.SimpleQueue()

    def wait(child: Child) -> None:
        child.process.wait()
        ended.put(child)

    threads = [threading.Thread(target=wait, args=(c,), daemon=True) for c in children]
    for thread in threads:
        thread.start()

    running, failed = set(children), None
    next_signals = [signal.SIGTERM, signal.SIGKILL]
    while running:
        try:
            child = ended.get(timeout=GRACE_SECONDS if failed and next_signals else None)
        except queue.Empty:
            number = next_signals.pop(0)
            for other in running:
                other.process.send_signal(number)
            continue
        running.remove(child)
        # They end in an order that tells which failed first.
        if child.process.returncode and failed is None:
            failed = child
    for thread in threads:
        thread.join()
    if failed is None:
        return 0
    for child in sorted(children, key=lambda c: c is not failed):
        child.show()
    stopped = "" if len(children) == 1 else "; stopped the others"
    say(f"{failed.ending()}{stopped}")
    code = failed.process.returncode
    return 128 - code if code < 0 else code


def forward_signals(children: list[Child]) -> list[int]:
    """Passes SIGTERM and SIGINT on to the children, from now on. Returns those seen so far."""
    seen = []

    def forward(number, _):
        seen.append(number)
        for child in children:
            child.process.send_signal(number if len(seen) == 1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(line: str) -> None:
    print(f"launch/local.py: {line}", file=sys.stderr, flush=True)


def at_least(least: int) -> Callable[[str], int]:
    """An argument's type: a whole number that is not below `least`."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
        return value

    return whole_number


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="launch/local.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=at_least(1), default=2, help="how many (2)")
    parser.add_argument(
        "--devices-per-process", type=at_least(1), default=1, help="virtual CPU devices (1)"
    )
    parser.add_argument("--restarts", type=at_least(0), default=0, help="after a failure (0)")
    parser.add_argument("command", nargs="+", help="after --, such as: stunet train ...")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
