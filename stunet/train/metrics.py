"""What a run measures: `metrics.jsonl`, TensorBoard events beside it, and the progress bar."""

import json
import pathlib
import sys
from collections.abc import Mapping

from PIL import Image
from tensorboardX import FileWriter, summary
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm


class Metrics:
    """Writes scalars and pictures of a working directory; other processes than the first write
    nothing.

    Lines of `metrics.jsonl` after update `step`, left by a run that was killed, are dropped: this
    run writes them anew.
    """

    def __init__(self, workdir: pathlib.Path, step: int, write: bool):
        self._write = write
        if write:
            file = workdir / "metrics.jsonl"
            _drop_later_lines(file, step)
            self._file = file.open("a")
            self._events = FileWriter(str(workdir))

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_) -> None:
        if self._write:
            self._events.close()
            self._file.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON, and one TensorBoard point for each value, after update `step`."""
        if not self._write:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_summary(summary.scalar(name, value), step)

    def picture(self, step: int, name: str, path: str) -> None:
        """Shows a PNG or GIF file in TensorBoard, which plays the latter."""
        if not self._write:
            return
        with Image.open(path) as image:
            width, height = image.size
        picture = Summary.Image(
            height=height,
            width=width,
            colorspace=3,
            encoded_image_string=pathlib.Path(path).read_bytes(),
        )
        self._events.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)


def _drop_later_lines(file: pathlib.Path, step: int) -> None:
    if not file.exists():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # The line that a kill cut short.
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(file)


class Progress:
    """A bar with the loss, clips per second and the time left."""

    def __init__(self, total: int, done: int, show: bool):
        # Without a terminal a bar would be thousands of lines; one a minute is enough.
        interval = 0.2 if sys.stderr.isatty() else 60
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            mininterval=interval,
            disable=not show,
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def update(self, step: int) -> None:
        self._bar.update(step - self._bar.n)

    def report(self, loss: float, clips_per_second: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.4f}, {clips_per_second:.1f} clips/s", refresh=False)

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(line, file=sys.stderr)
