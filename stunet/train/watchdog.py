"""Ends a run that makes no progress, so that its launcher can start it again.

A data source that blocks, an update that never returns or a disk that does not answer would keep a
run, and the devices that it holds, for ever. SIGTERM would not help, because only the training loop
responds to it, after the update in progress.
"""

import faulthandler
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import NamedTuple

from stunet.signals import STOP_SIGNALS

# Exit status of a run that made no progress. In sysexits.h it is a temporary failure, and every
# launcher of `launch/` restarts a run that ends with it.
HUNG_STATUS = 75

# Limits, as multiples of `train.watchdog_seconds`: of what may take long, and after a stop signal.
_SLOW = 10
_STOPPING = 0.1

# An update may also take this many times the longest so far, where that is more: on a slow machine
# an update of minutes is healthy.
_TIMES_LONGEST = 20

# Seconds for a last message. Its reader may be what hangs.
_MESSAGE_SECONDS = 10


class _Task(NamedTuple):
    """Names what the run is doing.

    Attributes:
        name: name of the task, which a message puts after "no progress for 10 s in ".
        is_slow: True if the task may take long.
    """

    name: str
    is_slow: bool


class Watchdog:
    """Context manager whose thread ends the process when one task takes too long.

    There are ordinary tasks, and slow tasks such as compiling. An ordinary task may take `seconds`,
    or 20 times as long as the longest ordinary task so far, whichever is more. A slow task may take
    ten times this limit. After a stop signal, all limits are a tenth of what they were. Time is
    then counted from the signal or from the beginning of the task, whichever is later. Time in
    which the whole process was stopped, as by Ctrl-Z, does not count.

    Args:
        seconds: limit of an ordinary task; 0 watches nothing.
        tell: passes a sentence to the other processes of the run, if there are any.
    """

    def __init__(self, seconds: float, tell: Callable[[str], None] = lambda _: None):
        self._seconds, self._tell = seconds, tell
        self._task = _Task("the set-up", is_slow=True)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._is_over = False

    def __enter__(self) -> "Watchdog":
        # A handler in Python waits for the main thread, which may never come back to Python. The
        # interpreter itself writes the number of each signal to this pipe, from any thread.
        self._signals, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._seconds:
            if self._in_main_thread:
                self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over = True
        if self._seconds:
            if self._in_main_thread:
                signal.set_wakeup_fd(self._before)
            os.write(self._writes, b"\0")
            self._thread.join()
        os.close(self._signals)
        os.close(self._writes)

    def begin(self, task: str, is_slow: bool = False) -> None:
        """Notes that the run begins another task.

        Args:
            task: name of the task, such as "update 7".
            is_slow: True if the task may take long, as compiling and saving do.
        """
        self._task = _Task(task, is_slow)

    def _watch(self) -> None:
        pause = min(1.0, self._seconds / 20)
        task, taken, longest, is_stopping = self._task, 0.0, 0.0, False
        while not self._is_over:
            # Counts its own looks, and not the clock, which goes on while the process is stopped.
            ready, _, _ = select.select([self._signals], [], [], pause)
            taken += 0.0 if ready else pause
            if ready and set(os.read(self._signals, 4096)) & set(STOP_SIGNALS) and not is_stopping:
                is_stopping, taken = True, 0.0
            if self._task is not task:
                longest = longest if task.is_slow else max(longest, taken)
                task, taken = self._task, 0.0
            limit = max(self._seconds, _TIMES_LONGEST * longest)
            limit *= (_SLOW if task.is_slow else 1) * (_STOPPING if is_stopping else 1)
            if taken > limit:
                self._end(task.name, limit, is_stopping)

    def _end(self, task: str, limit: float, is_stopping: bool) -> None:
        """Ends the process at once, even if other threads are blocked. No thread can clean up."""
        why = (
            f"the signal to stop had no answer for {limit:.3g} s"
            if is_stopping
            else (f"no progress for {limit:.3g} s")
        )
        sentence = (
            f"{why} in {task}; the stacks of all threads are above; the same command continues "
            "from the last checkpoint, and a larger train.watchdog_seconds waits longer"
        )
        message = threading.Thread(target=self._say, args=(sentence,), daemon=True)
        message.start()
        message.join(_MESSAGE_SECONDS)
        os._exit(HUNG_STATUS)

    def _say(self, sentence: str) -> None:
        # Into a file first: faulthandler would keep Python's other threads from running while
        # nobody reads what it writes. And not through `sys.stderr`, which a thread that hangs may
        # have locked.
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read()
        os.write(sys.__stderr__.fileno(), b"\n" + stacks + f"stunet train: {sentence}\n".encode())
        self._tell(sentence)
