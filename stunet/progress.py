"""Shows progress on the terminal: bars for sampling and metrics, a clock, and notes."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

# Takes the number of sampling steps done, the number of all steps, and the clips [b, t, h, w, c]
# that are being made, as the last step estimates them, in about -1..1, for `np.asarray`.
OnStep = Callable[[int, int, Any], None]


def nothing(done: int, total: int, clips: Any) -> None:
    """Shows no progress."""


def note(sentence: str) -> None:
    """Prints a sentence for the user to stderr. The program continues."""
    print(f"stunet: {sentence.encode(errors='backslashreplace').decode()}", file=sys.stderr)


def sampling_bar() -> OnStep:
    """Returns a function that draws a progress bar, which appears with the first step.

    After the last step, the next call draws another bar, for what is sampled next.
    """
    from tqdm import tqdm

    bar = None

    def show(done: int, total: int, clips: Any = None) -> None:
        nonlocal bar
        bar = bar or tqdm(desc="sampling", unit="step", total=total, dynamic_ncols=True)
        # A command that continues starts above zero, so the bar jumps to `done`.
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            bar = None

    return show


def metrics_bar() -> Callable[[str, int, int], None]:
    """Returns a function that draws one progress bar for each set of clips.

    The function takes the name of the set, the number of clips measured and the number of all
    clips. A bar appears after two seconds, so short work draws none.
    """
    from tqdm import tqdm

    bars = {}

    def show(clips: str, done: int, total: int) -> None:
        if clips not in bars:
            options = dict(unit="clip", total=total, dynamic_ncols=True, delay=2)
            bars[clips] = tqdm(desc=f"measuring {clips} clips", **options)
        bars[clips].update(done - bars[clips].n)
        if done == total:
            bars[clips].close()

    return show


@contextlib.contextmanager
def elapsed(task: str) -> Iterator[None]:
    """Context manager that shows a task and the time it has taken, updated once a second.

    It shows nothing if standard error is not a terminal. It writes to a copy of standard error, so
    that the line is shown even while standard error is redirected to silence a library.
    """
    done, terminal = threading.Event(), os.fdopen(os.dup(2), "w")
    start = time.monotonic()

    def show() -> None:
        while not done.wait(1):
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            terminal.write(f"\r{task}: {minutes} min {seconds:02d} s")
            terminal.flush()

    thread = threading.Thread(target=show, daemon=True)
    if terminal.isatty():
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()
            terminal.write("\r\033[K")
        terminal.close()
