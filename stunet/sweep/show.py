"""What a sweep says while it runs: a line for each event, and on a terminal a table below them."""

import pathlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence

from stunet import configs
from stunet.formatting import duration
from stunet.sweep.members import Entry, Member
from stunet.sweep.workdir import last_metrics

# On a terminal, and elsewhere, where every table would be lines that stay.
_TERMINAL_SECONDS = 1
_PLAIN_SECONDS = 60


class Board:
    """Shows how far all are, on stderr."""

    def __init__(self, workdir: pathlib.Path, entries: Sequence[Entry]):
        self._workdir, self._entries = workdir, entries
        self._terminal = sys.stderr.isatty()
        self._every = _TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS
        self._drawn, self._next = 0, time.monotonic() + self._every

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_) -> None:
        self._erase()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        self._erase()
        print(line, file=sys.stderr, flush=True)
        # The table comes back below it at once.
        self._next = 0 if self._terminal else self._next

    def show(self, running: Mapping[str, object], done: int, failed: int) -> None:
        """Shows each that runs, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        width, height = shutil.get_terminal_size()
        left = len(self._entries) - done - failed - len(running)
        lines = [_progress(self._workdir, e) for e in self._entries if e.name in running]
        lines.append(f"{done} done, {len(running)} running, {left} waiting, {failed} failed")
        self._erase()
        if self._terminal:
            lines = [line[: width - 1] for line in lines[-(height - 1) :]]
            self._drawn = len(lines)
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _erase(self) -> None:
        if self._drawn:
            # Up so many lines, and clear all from there on.
            sys.stderr.write(f"\033[{self._drawn}A\033[J")
        self._drawn = 0


def _progress(workdir: pathlib.Path, entry: Entry) -> str:
    if not isinstance(entry, Member):
        return f"  {entry.name}: {' '.join(entry.command)}"
    values, keys = last_metrics(workdir, entry.name), configs.flatten(entry.config)
    steps = keys["train.steps"]
    step = values.get("step", 0)
    filled = round(20 * step / steps)
    line = f"  |{'#' * filled:<20}| {step}/{steps} {entry.name}"
    if step:
        line += f"  loss {values['loss']:.4f}"
    if values.get("clips_per_second"):
        left = (steps - step) * keys["train.batch_size"] / values["clips_per_second"]
        line += f", {duration(left)} left"
    return line
