"""Writes what a run measures to `metrics.jsonl`, TensorBoard events and a progress bar."""

import contextlib
import functools
import json
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tqdm import tqdm

from stunet.files import atomic
from stunet.formatting import duration
from stunet.train import metric_lines

if TYPE_CHECKING:
    from stunet.train.tensorboard import Events


class Metrics:
    """Writes scalars and pictures to a working directory.

    If the run was killed earlier, `metrics.jsonl` may hold lines of updates after `step`. These
    lines are dropped, because the updates are done and written again.

    Args:
        workdir: working directory of the run.
        step: number of updates done.
        write: True in the one process that writes; False in all others.
        tracked: name of a metric whose values every process keeps; "" for none.

    Attributes:
        last: newest value of each metric up to update `step`; empty if `write` is False.
        values: value of the tracked metric by step.
        damage: a sentence about damaged lines, which are dropped too; "" if there were none.
    """

    def __init__(self, workdir: pathlib.Path, step: int, write: bool, tracked: str = ""):
        self._write, self._tracked = write, tracked
        self._workdir, self._file = workdir, workdir / metric_lines.FILE
        self.last: dict[str, float] = {}
        self.damage = ""
        self.values = _read_values(self._file, tracked, step) if tracked else {}
        if write:
            self.last, self.damage = _drop_later_lines(self._file, step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        if "_events" in vars(self):
            # Every event was flushed, or the run already ends because it could not be.
            with contextlib.suppress(OSError):
                self._events.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes metrics after update `step` as a line of JSON and as points in TensorBoard."""
        if self._tracked in values:
            self.values[step] = values[self._tracked]
        if not self._write:
            return
        # Closed after each line: a mounted bucket has the line only then.
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self._events.scalars(step, values)

    def picture(self, step: int, name: str, path: str) -> None:
        """Shows a PNG or GIF file in TensorBoard, which plays GIFs."""
        if not self._write:
            return
        self._events.picture(step, name, path)

    @functools.cached_property
    def _events(self) -> "Events":
        from stunet.train.tensorboard import Events

        return Events(self._workdir)


def _read_values(file: pathlib.Path, name: str, step: int) -> dict[int, float]:
    """Reads the values of a metric up to update `step`, by step."""
    lines = (values for values, _ in metric_lines.read(file).values)
    return {line["step"]: line[name] for line in lines if line["step"] <= step and name in line}


def _drop_later_lines(file: pathlib.Path, step: int) -> tuple[dict[str, float], str]:
    """Drops lines of updates after `step`, and lines that are damaged.

    Returns:
        The newest value of each metric in the remaining lines, and a sentence about damaged lines.
    """
    lines, last = metric_lines.read(file), {}
    kept = [(values, text) for values, text in lines.values if values["step"] <= step]
    for values, _ in kept:
        last |= values
    if file.exists():
        with atomic(file) as partial:
            partial.write_text("".join(f"{text}\n" for _, text in kept))
    return last, metric_lines.damage(file, lines)


class Progress:
    """Shows a progress bar with the loss, clips per second and the time left.

    Args:
        total: number of updates in the run.
        done: number of updates done.
        show: True in the process that shows the bar.

    Attributes:
        bar: the bar of tqdm.
    """

    def __init__(self, total: int, done: int, show: bool):
        # Without a terminal a bar would be thousands of lines; one a minute is enough.
        interval = 0.2 if sys.stderr.isatty() else 60
        self.bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            mininterval=interval,
            # The time left follows from the mean rate, which steadies it.
            smoothing=0,
            disable=not show,
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def update(self, step: int) -> None:
        """Moves the bar to update `step`."""
        self.bar.update(step - self.bar.n)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Context manager that shows that the update is compiling, and since when.

        At the end, the bar's clock starts again, so that its estimate of the time left does not
        include compiling.
        """
        begun, done = time.monotonic(), threading.Event()

        def show() -> None:
            while not done.wait(1):
                self.bar.set_description_str(f"compiling, {duration(time.monotonic() - begun)} ")

        thread = threading.Thread(target=show, daemon=True)
        if not self.bar.disable and sys.stderr.isatty():
            thread.start()
        elif not self.bar.disable:
            self.write("compiling the update; the first one takes longest")
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()
        if not self.bar.disable:
            self.write(f"compiled in {duration(time.monotonic() - begun)}")
            self.bar.set_description_str("")
            self.bar.initial = self.bar.n
            self.bar.start_t = self.bar.last_print_t = time.time()

    def report(self, loss: float | None, clips_per_second: float | None, skipped: int = 0) -> None:
        """Shows how the run goes.

        Args:
            loss: loss of the last updates; None if all of them were skipped.
            clips_per_second: number of clips that the run trains on per second; None if not known.
            skipped: number of updates skipped since the run began.
        """
        shown = [
            "" if loss is None else f"loss {loss:.4f}",
            "" if clips_per_second is None else f"{clips_per_second:.1f} clips/s",
            f"{skipped} skipped" if skipped else "",
        ]
        self.bar.set_postfix_str(", ".join(filter(None, shown)), refresh=False)

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.write(line, file=sys.stderr)
