"""Writes what a run measures to `metrics.jsonl`, to trackers and to a progress bar."""

import contextlib
import json
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from stunet.files import atomic
from stunet.formatting import duration
from stunet.stores import addresses
from stunet.train.measured import metric_lines
from stunet.train.measured.trackers import Trackers


class Metrics:
    """Writes scalars to a working directory, and shows them and pictures in trackers.

    If the run was killed earlier, `metrics.jsonl` may hold lines of updates after `step`. These
    lines are dropped, because the updates are done and written again. Trackers that showed the run
    then have them already, and are not given them twice.

    Args:
        workdir: working directory of the run.
        step: number of updates done.
        write: True in the one process that writes; False in all others.
        tracked: name of a metric whose values every process keeps; "" for none.
        trackers: programs that show the run, in the one process that writes; None for none.

    Attributes:
        last: newest value of each metric up to update `step`; empty if `write` is False.
        values: value of the tracked metric by step.
        measured: names of the metrics in lines of update `step`, in every process.
        damage: a sentence about damaged lines, which are dropped too; "" if there were none.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        write: bool,
        tracked: str = "",
        trackers: Trackers | None = None,
    ):
        self._write, self._tracked, self._trackers = write, tracked, trackers
        self._file = workdir / metric_lines.FILE
        self.last: dict[str, float] = {}
        self.damage = ""
        self.values = metric_lines.read_values(self._file, tracked) if tracked else {}
        self.values = {at: value for at, value in self.values.items() if at <= step}
        lines = (values for values, _ in metric_lines.read(self._file).values)
        self.measured = {name for line in lines if line["step"] == step for name in line}
        # What trackers were shown of updates after `step`: names of metrics, and pictures.
        self._shown: set[tuple[int, str]] = set()
        self._pictures = {str(file) for file in (workdir / "samples").glob("step_*")}
        if write:
            self.last, self._shown, self.damage = _drop_later_lines(self._file, step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        if self._trackers:
            self._trackers.close()

    def scalars(
        self, step: int, values: Mapping[str, float], shown_only: Mapping[str, float] | None = None
    ) -> None:
        """Writes metrics after update `step` as a line of JSON, and shows them in trackers.

        Trackers also show the values of `shown_only`.
        """
        if self._tracked in values:
            self.values[step] = values[self._tracked]
        if not self._write:
            return
        # Closed after each line: a mounted bucket has the line only then.
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._trackers:
            again = {name for name in values if (step, name) in self._shown}
            more = dict(shown_only or {})
            # What goes to trackers alone is not on disk. It was shown together with the others.
            again |= more.keys() if len(again) == len(values) else set()
            self._trackers.scalars(step, dict(values) | more, again)

    def picture(self, step: int, name: str, path: str) -> None:
        """Shows a PNG or GIF file of `samples/` in trackers."""
        if self._trackers:
            self._trackers.picture(step, name, path, again=path in self._pictures)


def _drop_later_lines(
    file: pathlib.Path, step: int
) -> tuple[dict[str, float], set[tuple[int, str]], str]:
    """Drops lines of updates after `step`, and lines that are damaged.

    Returns:
        The newest value of each metric in the remaining lines, the update and the name of each
        value in the lines that were dropped, and a sentence about damaged lines.
    """
    lines, last, dropped = metric_lines.read(file), {}, set()
    kept = [(values, text) for values, text in lines.values if values["step"] <= step]
    for values, _ in lines.values:
        if values["step"] <= step:
            last |= values
        else:
            dropped |= {(values["step"], name) for name in values}
    if file.exists():
        with atomic(file) as partial:
            partial.write_text("".join(f"{text}\n" for _, text in kept))
    return last, dropped, metric_lines.damage(file, lines)


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
        self.bar.write(addresses.shown(line), file=sys.stderr)
