"""Runs a sweep on this machine: so many processes at a time, whatever becomes of any of them."""

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

from stunet import files
from stunet.errors import UserError
from stunet.formatting import duration
from stunet.sweep.members import Entry, Member
from stunet.sweep.show import Board
from stunet.sweep.workdir import arguments, is_done, last_metrics

_POLL_SECONDS = 0.1


@dataclasses.dataclass
class _Child:
    """A process that runs a member or a step."""

    entry: Entry
    process: subprocess.Popen
    log: pathlib.Path
    log_begins: int
    begun: float

    def ending(self) -> str:
        """Why it failed: the last thing that it said."""
        with self.log.open("rb") as file:
            file.seek(self.log_begins)
            lines = re.split(r"[\r\n]+", file.read().decode(errors="replace").strip())
        code = self.process.returncode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "it ended before it was done"
        said = [line for line in lines if line.startswith("stunet ")] or lines
        return re.sub(r"^stunet \w+: ", "", said[-1].strip()) or f"exited with status {code}"


def run(
    workdir: pathlib.Path,
    entries: Sequence[Entry],
    jobs: int = 1,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs what is not done of a sweep that `workdir.claim` has noted.

    A member that was interrupted continues from its checkpoint. One that fails keeps none from
    running but the steps that need it. SIGTERM and SIGINT (Ctrl-C) stop all, which save first; a
    second one kills them.

    Args:
        workdir: of the sweep.
        entries: of `members.load`.
        jobs: processes at a time.
        environment: of the processes; by default this one's.

    Raises:
        UserError: some failed, or all were stopped; the sentence says which and where their logs
        are. Or the same sweep is running already.
    """
    environment = dict(os.environ if environment is None else environment)
    if jobs > 1:
        # Each would take three quarters of a GPU's memory for itself.
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / jobs:.3f}")
    done = {entry.name for entry in entries if is_done(workdir, entry)}
    waiting = [entry for entry in entries if entry.name not in done]
    running, failed, told = {}, {}, False
    board = Board(workdir, entries)
    if done:
        board.say(f"{len(done)} of {len(entries)} were done already")

    busy = (
        f"a sweep is running in {workdir}, or members that one has left behind; wait for them, or "
        "end them"
    )
    # Its processes hold it too, if they outlive this one.
    with files.locked(workdir, busy) as lock, _signals(running) as stopped, board:
        while running or (waiting and not stopped):
            for entry in [] if stopped else list(waiting):
                broken = [name for name in getattr(entry, "after", ()) if name in failed]
                if broken:
                    waiting.remove(entry)
                    failed[entry.name] = f"not run, since {broken[0]} failed"
                    board.say(f"{entry.name}: {failed[entry.name]}")
                elif len(running) < jobs and done.issuperset(getattr(entry, "after", ())):
                    waiting.remove(entry)
                    running[entry.name] = _start(workdir, entry, environment, lock)
                    board.say(f"{entry.name}: {_begins(workdir, entry)}")
            time.sleep(_POLL_SECONDS)
            if stopped and not told:
                told = True
                board.say(f"stopping {len(running)}, which save first; once more kills them")
            for name, child in list(running.items()):
                if child.process.poll() is None:
                    continue
                del running[name]
                if child.process.returncode == 0 and is_done(workdir, child.entry):
                    done.add(name)
                    took = duration(time.monotonic() - child.begun)
                    loss = last_metrics(workdir, name).get("loss")
                    loss = "" if loss is None else f", training loss {loss:.4g}"
                    board.say(f"{name}: done in {took}{loss} ({len(done)} of {len(entries)})")
                elif stopped:
                    waiting.append(child.entry)
                    at = last_metrics(workdir, name).get("step")
                    board.say(f"{name}: stopped" + ("" if at is None else f" at update {at}"))
                else:
                    failed[name] = child.ending()
                    board.say(f"{name}: FAILED: {failed[name]}; see {child.log}")
            board.show(running, len(done), len(failed))
    if stopped and waiting:
        raise UserError(
            f"stopped with {len(done)} of {len(entries)} done; the same command continues from "
            "what was saved"
        )
    if failed:
        which = "; ".join(
            f"{name} ({workdir / name / 'log.txt'}): {failed[name]}" for name in failed
        )
        raise UserError(
            f"{len(failed)} of {len(entries)} failed, which the same command tries again: {which}"
        )


def _start(workdir: pathlib.Path, entry: Entry, environment, lock: int | None) -> _Child:
    log = workdir / entry.name / "log.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        begins = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "stunet.cli", *arguments(workdir, entry)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Else a Ctrl-C of the terminal's would reach it twice.
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
    return _Child(entry, process, log, begins, time.monotonic())


def _begins(workdir: pathlib.Path, entry: Entry) -> str:
    if not isinstance(entry, Member):
        return "begins"
    at = last_metrics(workdir, entry.name).get("step")
    return "begins" if at is None else f"continues, from about update {at}"


@contextlib.contextmanager
def _signals(running: dict[str, _Child]) -> Iterator[list[int]]:
    """Within: SIGTERM and SIGINT reach all that run, as SIGTERM, and from the second on as SIGKILL.

    Gives the list of those seen so far.
    """
    seen = []

    def forward(number, _) -> None:
        seen.append(number)
        for child in list(running.values()):
            child.process.send_signal(signal.SIGTERM if len(seen) == 1 else signal.SIGKILL)

    before = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in running.values():
            child.process.kill()
