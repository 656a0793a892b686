"""Notes the signals that ask a program to stop, so that it can end by itself.

A handler may run inside another one: a second signal can come between any two instructions of the
first handler. So handlers here take no lock. `threading.Event.set` takes one, and waits for ever if
a second handler calls it while the first one holds it. `list.append` takes none.
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
    """Lets stop signals be noted from now on instead of ending the process.

    A SIGHUP that this process was started to ignore, as `nohup` does, stays ignored.

    Returns:
        A list to which the number of each signal is added when it comes. It stays empty if this is
        not the main thread, which alone may handle signals.
    """
    noted: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: noted.append(number))
    return noted
