"""Runs the members and steps of a sweep as processes of this machine, several at a time."""

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from stunet import files, signals
from stunet.errors import UserError
from stunet.formatting import duration
from stunet.stores import mirror
from stunet.sweep.members import Entry, Member
from stunet.sweep.progress import ProgressTable
from stunet.sweep.workdir import arguments, find_done, is_done, last_metrics

_POLL_SECONDS = 0.1


@dataclasses.dataclass
class _Child:
    """A process that runs a member or a step.

    Attributes:
        entry: the member or step.
        process: the process.
        log: file of the process's output.
        log_start: size of `log`, in bytes, when the process started.
        started: time at which the process started, by `time.monotonic`.
    """

    entry: Entry
    process: subprocess.Popen
    log: pathlib.Path
    log_start: int
    started: float

    def failure(self) -> str:
        """Returns why the process failed: the signal that killed it, or its last message."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = re.split(r"[\r\n]+", file.read().decode(errors="replace").strip())
        code = self.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "ended before its last update was saved, or its file was written"
        messages = [line for line in lines if line.startswith("stunet ")] or lines
        return re.sub(r"^stunet \w+: ", "", messages[-1].strip()) or f"exited with status {code}"


def run(
    workdir: pathlib.Path,
    entries: Sequence[Entry],
    jobs: int = 1,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs the members and steps of a sweep that are not done.

    A member that was interrupted continues from its checkpoint. If a member or step fails, the
    steps that need it are skipped. SIGTERM, SIGINT (Ctrl-C) or SIGHUP stops all processes, which
    save first. A second signal kills them.

    Args:
        workdir: directory of the sweep, prepared by `workdir.claim`.
        entries: members and steps, from `members.load`.
        jobs: number of processes that run at once.
        environment: environment variables of the processes. None means this process's own.

    Raises:
        UserError: members or steps failed, all were stopped, or the same sweep is running already.
            After a failure, the sentence names the entries that failed and their logs.
    """
    environment = dict(os.environ if environment is None else environment)
    if jobs > 1:
        # By default each process would take three quarters of a GPU's memory.
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / jobs:.3f}")
    done = find_done(workdir, entries)
    waiting = [entry for entry in entries if entry.name not in done]
    running: dict[str, _Child] = {}
    failed: dict[str, str] = {}
    seen = 0
    table = ProgressTable(workdir, entries)
    if done:
        table.log(f"{len(done)} of {len(entries)} were done already")

    busy = (
        f"a sweep is running in {workdir}, or members of an earlier one still are; wait for them, "
        "or end them"
    )
    # The processes inherit the lock, so that it is held as long as one of them lives.
    with (
        signals.handlers_kept(),
        files.locked(workdir, busy) as lock,
        _killed_at_the_end(running),
        table,
    ):
        stops = signals.note_stops()
        while running or (waiting and not stops):
            for entry in [] if stops else list(waiting):
                needs = entry.after
                broken = [name for name in needs if name in failed]
                if broken:
                    waiting.remove(entry)
                    failed[entry.name] = f"not run, since {broken[0]} failed"
                    table.log(f"{entry.name}: {failed[entry.name]}")
                elif len(running) < jobs and done.issuperset(needs):
                    waiting.remove(entry)
                    running[entry.name] = _start(workdir, entry, environment, lock)
                    table.log(f"{entry.name}: {_start_message(workdir, entry)}")
            time.sleep(_POLL_SECONDS)
            # Signals that came since the last look count as one: a closing terminal sends several.
            if len(stops) > seen:
                number = signal.SIGKILL if seen else signal.SIGTERM
                for child in running.values():
                    child.process.send_signal(number)
                if not seen:
                    table.log(
                        f"stopping {len(running)} processes, which save first; a second signal "
                        "kills them"
                    )
                seen = len(stops)
            for name, child in list(running.items()):
                if child.process.poll() is None:
                    continue
                del running[name]
                try:
                    mirror.push(workdir / name)
                except UserError as error:  # At the end of the sweep, all is uploaded again.
                    table.log(f"{name}: {error}")
                if child.process.returncode == 0 and is_done(workdir, child.entry):
                    done.add(name)
                    took = duration(time.monotonic() - child.started)
                    loss = last_metrics(workdir, name).get("loss")
                    loss = "" if loss is None else f", training loss {loss:.4g}"
                    table.log(f"{name}: done in {took}{loss} ({len(done)} of {len(entries)})")
                elif stops:
                    waiting.append(child.entry)
                    step = last_metrics(workdir, name).get("step")
                    table.log(f"{name}: stopped" + ("" if step is None else f" at update {step}"))
                else:
                    failed[name] = child.failure()
                    table.log(f"{name}: FAILED: {failed[name]}; see {child.log}")
            table.draw(running, len(done), len(failed))
    if stops and waiting:
        raise UserError(
            f"stopped with {len(done)} of {len(entries)} done; the same command continues from "
            "what was saved"
        )
    if failed:
        which = "; ".join(
            f"{name} ({workdir / name / 'log.txt'}): {failed[name]}" for name in failed
        )
        raise UserError(
            f"{len(failed)} of {len(entries)} failed; the same command tries them again: {which}"
        )


def _start(
    workdir: pathlib.Path, entry: Entry, environment: Mapping[str, str], lock: int | None
) -> _Child:
    """Starts the process of a member or step, and passes the file descriptor `lock` to it."""
    log = workdir / entry.name / "log.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        log_start = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "stunet.cli", *arguments(workdir, entry)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # In the terminal's session, a Ctrl-C would reach the process twice.
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
    return _Child(entry, process, log, log_start, time.monotonic())


def _start_message(workdir: pathlib.Path, entry: Entry) -> str:
    """Says whether a member or a step starts or continues."""
    step = None
    if isinstance(entry, Member):
        step = last_metrics(workdir, entry.name).get("step")
    return "starts" if step is None else f"continues from about update {step}"


@contextlib.contextmanager
def _killed_at_the_end(running: Mapping[str, _Child]) -> Iterator[None]:
    """Context manager that kills, at its end, the processes that still run."""
    try:
        yield
    finally:
        for child in running.values():
            child.process.kill()
