"""Records the signals that ask a program to stop, so that the program can end by itself.

A handler may run inside another one: a second signal can come between any two instructions of the
first handler. So handlers here take no lock. `threading.Event.set` takes a lock, and would wait for
ever if a second handler called it while the first handler holds the lock. `list.append` takes no
lock.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

# SIGINT is Ctrl-C. SIGHUP comes when the terminal is closed or the connection to it is lost.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Context manager that puts back, at its end, the handlers of the stop signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def note_stops() -> list[int]:
    """Records stop signals from now on. They no longer end the process.

    If SIGHUP was ignored when this process started, as under `nohup`, it stays ignored.

    Returns:
        A list to which the number of each signal is added when the signal comes. The list stays
        empty if this function is called outside the main thread, because only the main thread may
        handle signals.
    """
    noted: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: noted.append(number))
    return noted
