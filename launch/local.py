#!/usr/bin/env python3
"""Runs a command as several processes on this machine, which act like the hosts of a pod.

    launch/local.py --processes 2 --devices-per-process 4 -- \\
        stunet train --config experiments/memorised_digits.py --workdir runs/two_hosts

Each process gets `--coordinator HOST:PORT --processes N --process I` after its command, and virtual
CPU devices. The output of process 0 is shown as it comes; that of the others is shown if the job
fails. Every process gets SIGTERM, SIGINT (Ctrl-C) and SIGHUP too; a second signal kills the
processes. On Linux they also die if the launcher is killed. If a process fails, the launcher names
it and stops the others. With `--restarts N` it then starts all of them again, up to N times, so
that a run continues from its latest checkpoint; it does not do so after a signal.
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

# Time for the others to end by themselves after one has failed, and again after SIGTERM.
GRACE_SECONDS = 5
SHOWN_LINES = 30


class Child:
    """One process of the job."""

    def __init__(self, index: int, command: list[str], environment: dict[str, str]):
        self.index = index
        # A file, not a pipe, which somebody would have to empty. It is deleted with the launcher.
        self.output = None if index == 0 else tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            # Otherwise the process would get Ctrl-C twice: from the terminal and from us.
            start_new_session=True,
            # Runs after the fork, which is safe because the launcher runs no threads then.
            preexec_fn=die_with(os.getpid()) if sys.platform == "linux" else None,
        )

    def ending(self) -> str:
        """Returns a sentence that says how the process ended."""
        code = self.process.returncode
        if code < 0:
            return f"process {self.index} was killed by {signal.Signals(-code).name}"
        return f"process {self.index} exited with status {code}"

    def show(self) -> None:
        """Prints the last lines of the process's output, unless the terminal has shown them."""
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
    # On CPUs only process 0 would find its programs in the cache, and gloo waits at most 30 s for
    # the others to compile them.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    environment["XLA_FLAGS"] = (
        f"{environment.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={arguments.devices_per_process}"
    )
    children: list[Child] = []
    seen = forward_signals(children)
    for restart in range(arguments.restarts + 1):
        status, final = run(arguments, environment, children, seen)
        if status == 0 or final or seen or restart == arguments.restarts:
            return status
        say(f"starting again, for time {restart + 1} of {arguments.restarts}")


def run(
    arguments: argparse.Namespace,
    environment: dict[str, str],
    children: list[Child],
    seen: list[int],
) -> tuple[int, bool]:
    """Runs the job once.

    Args:
        arguments: arguments of the command line.
        environment: environment variables of the processes.
        children: list that is filled with the processes.
        seen: signals received so far.

    Returns:
        The exit status, and True if the job must not restart because it could not start.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    children.clear()
    try:
        for index in range(arguments.processes):
            flags = f"--coordinator={coordinator} --processes={arguments.processes}".split()
            command = [*arguments.command, *flags, f"--process={index}"]
            children.append(Child(index, command, environment))
        # A signal that came while processes were starting has not reached all of them.
        for number in seen[:1]:
            for child in children:
                child.process.send_signal(number)
        pids = ", ".join(f"process {c.index} is {c.process.pid}" for c in children)
        say(f"{pids}; they meet at {coordinator}")
        return watch(children), False
    except OSError as error:
        say(f"cannot run {arguments.command[0]!r}: {error.strerror}")
        return 127, True
    finally:
        for child in children:
            child.process.kill()


def die_with(launcher: int) -> Callable[[], None]:
    """Returns a function that a new process calls, so that it is killed when the launcher ends."""
    prctl, set_parent_death_signal = ctypes.CDLL(None).prctl, 1

    def ask() -> None:
        prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != launcher:  # The launcher has ended already.
            os._exit(1)

    return ask


def watch(children: list[Child]) -> int:
    """Waits for all processes, and stops the others once one has failed.

    Returns:
        The exit status of the job.
    """
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
        # Processes arrive in the order in which they end, so this one failed first.
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
    """Passes stop signals on to the children. Returns a list that collects the signals.

    A second signal may come while the handler runs, so the handler waits for no lock.
    """
    seen = []

    def forward(number, _):
        seen.append(number)
        for child in children:
            child.process.send_signal(number if len(seen) == 1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # `nohup` starts the launcher with SIGHUP ignored, and it stays so.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(line: str) -> None:
    print(f"launch/local.py: {line}", file=sys.stderr, flush=True)


def at_least(least: int) -> Callable[[str], int]:
    """Returns the type of an argument that is a whole number, at least `least`."""

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
    parser.add_argument(
        "--processes",
        type=at_least(1),
        default=2,
        metavar="N",
        help="number of processes (default %(default)s)",
    )
    parser.add_argument(
        "--devices-per-process",
        type=at_least(1),
        default=1,
        metavar="N",
        help="virtual CPU devices of each process (default %(default)s)",
    )
    parser.add_argument(
        "--restarts",
        type=at_least(0),
        default=0,
        metavar="N",
        help="number of restarts after failures (default %(default)s)",
    )
    parser.add_argument("command", nargs="+", help="command after --, such as: stunet train ...")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
