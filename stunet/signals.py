"""Ends programs in good order: signals that ask them to stop, and processes that they started.

A handler may run inside another one: a second signal can come between any two instructions of the
first handler. So handlers here take no lock. `threading.Event.set` takes a lock, and would wait for
ever if a second handler called it while the first handler holds the lock. `list.append` takes no
lock.
"""

import contextlib
import multiprocessing
import os
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


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, however that ended.

    A process that is killed, or ended by SIGTERM, does not end those that `multiprocessing` started
    for it. They would go on with work that nobody waits for.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
