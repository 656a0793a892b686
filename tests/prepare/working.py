"""Work for the engines. A process of its own can import it from here."""

import os
import signal
import time

from stunet.errors import UserError


def work(part, broken):
    """Yields each item squared, and the sum."""
    for number, item in enumerate(part):
        yield None if number in broken else item**2
    yield ("whole", part, sorted(broken))


def work_that_dies(part, broken):
    """Is killed at item 5."""
    for number, item in enumerate(part):
        if number not in broken and item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield None if number in broken else item**2
    yield ("whole", part, sorted(broken))


def work_that_fails(part, broken):
    if 4 in part:
        raise UserError("item 4 is wrong")
    yield from work(part, broken)


def work_that_ends_late(part, broken):
    yield 0
    os.kill(os.getpid(), signal.SIGKILL)


def work_that_waits(part, broken):
    """Says who works, and waits for ten minutes."""
    print(os.getpid(), flush=True)
    time.sleep(600)
    yield None
