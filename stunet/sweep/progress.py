"""Shows the progress of a sweep: a line for each event and, on a terminal, a table below them."""

import math
import pathlib
import shutil
import sys
import time
from collections.abc import Collection, Sequence

from stunet import configs
from stunet.formatting import duration
from stunet.stores.addresses import shown
from stunet.sweep.members import Entry, Member
from stunet.sweep.workdir import last_metrics

# A terminal draws each table over the last one. Elsewhere every table stays, so they are rare.
_TERMINAL_SECONDS = 1
_PLAIN_SECONDS = 60


class ProgressTable:
    """Prints events and a table of the running members to stderr.

    Args:
        workdir: directory of the sweep.
        entries: members and steps of the sweep.
    """

    def __init__(self, workdir: pathlib.Path, entries: Sequence[Entry]):
        self._workdir, self._entries = workdir, entries
        self._is_terminal = sys.stderr.isatty()
        self._interval = _TERMINAL_SECONDS if self._is_terminal else _PLAIN_SECONDS
        self._next = time.monotonic() + self._interval
        self._lines_drawn = 0

    def __enter__(self) -> "ProgressTable":
        return self

    def __exit__(self, *_) -> None:
        self._erase()

    def log(self, line: str) -> None:
        """Prints a line that stays, above the table."""
        self._erase()
        print(shown(line), file=sys.stderr, flush=True)
        if self._is_terminal:
            self._next = 0  # The next call of `draw` draws the table again.

    def draw(self, running: Collection[str], done: int, failed: int) -> None:
        """Draws the table again if enough time has passed since it was last drawn.

        Args:
            running: names of the members and steps that run.
            done: number of members and steps that are done.
            failed: number of members and steps that failed.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        width, height = shutil.get_terminal_size()
        waiting = len(self._entries) - done - failed - len(running)
        lines = [_line(self._workdir, e) for e in self._entries if e.name in running]
        lines.append(f"{done} done, {len(running)} running, {waiting} waiting, {failed} failed")
        self._erase()
        if self._is_terminal:
            lines = [line[: width - 1] for line in lines[-(height - 1) :]]
            self._lines_drawn = len(lines)
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _erase(self) -> None:
        if self._lines_drawn:
            # Moves the cursor up to the table's first line, and clears the screen from there.
            sys.stderr.write(f"\033[{self._lines_drawn}A\033[J")
        self._lines_drawn = 0


def _line(workdir: pathlib.Path, entry: Entry) -> str:
    """Returns the table's line about a running member or step."""
    if not isinstance(entry, Member):
        return f"  {entry.name}: {' '.join(entry.command)}"
    values, keys = last_metrics(workdir, entry.name), configs.flatten(entry.config)
    steps = keys["train.steps"]
    step = values.get("step", 0)
    filled = min(round(20 * step / steps), 20)
    line = f"  |{'#' * filled:<20}| {step}/{steps} {entry.name}"
    if step:
        line += f"  loss {values['loss']:.4f}"
    if (rate := values.get("clips_per_second", 0)) > 0:
        left = (steps - step) * keys["train.batch_size"] / rate
        line += f", {duration(left)} left" if math.isfinite(left) else ""
    return line
