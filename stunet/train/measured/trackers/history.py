"""Reads what a run has measured and drawn, for trackers that are added when it continues.

`trackers.jsonl` in the working directory has a line for each tracker that has begun to show the
run. A tracker that has none is new: it is first given everything that the run has measured so far.
"""

import dataclasses
import json
import pathlib

from stunet import jsonfiles
from stunet.train.measured import metric_lines

FILE = "trackers.jsonl"

# Name of a picture in trackers -> how its file in `samples/` ends, after "step_" and eight digits.
PICTURES = {"samples/clips": ".gif", "samples/xt": "_xt.png"}

# A call of a tracker: the name of its function, and the arguments.
Call = tuple[str, tuple]


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str


def stem(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the place of the pictures after update `step`, without the end of their names."""
    return workdir / "samples" / f"step_{step:08d}"


def find_new(workdir: pathlib.Path, names: list[str], step: int) -> set[str]:
    """Returns those of `names` that are of trackers which have not shown the run yet.

    A run that was begun by a version of stunet without `trackers.jsonl` has none, because nobody
    knows what its trackers have shown.

    Args:
        workdir: working directory of the run.
        names: names of trackers.
        step: number of updates done. A run without updates gets its `trackers.jsonl`.
    """
    file = workdir / FILE
    if step == 0:
        file.touch()
    if not file.exists():
        return set()
    return set(names) - {line.name for line, _ in jsonfiles.read_lines(file, _Line).values}


def note(workdir: pathlib.Path, name: str) -> None:
    """Notes that the tracker `name` has begun to show the run, if that is not noted yet."""
    file = workdir / FILE
    noted = jsonfiles.read_lines(file, _Line).values if file.exists() else []
    if name not in (line.name for line, _ in noted):
        with file.open("a") as lines:
            lines.write(json.dumps({"name": name}) + "\n")


def calls(workdir: pathlib.Path, step: int) -> list[Call]:
    """Returns the calls that show a tracker all metrics and pictures up to update `step`, in order.

    Metrics that only trackers are given, such as those of the machine, are not on disk.
    """
    found = []
    for values, _ in metric_lines.read(workdir / metric_lines.FILE).values:
        at, shown = values["step"], {k: v for k, v in values.items() if k != "step"}
        if at <= step and shown:
            found.append(("scalars", (at, shown)))
    for name, end in PICTURES.items():
        for file in (workdir / "samples").glob(f"step_{'[0-9]' * 8}{end}"):
            at = int(file.name[len("step_") :].removesuffix(end))
            if at <= step:
                found.append(("picture", (at, name, str(file))))
    return sorted(found, key=lambda call: call[1][0])
