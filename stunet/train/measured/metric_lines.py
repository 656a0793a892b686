"""Reads `metrics.jsonl`. Each line is a JSON object with metrics of a run."""

import pathlib
from typing import Annotated, Any

import msgspec

from stunet import jsonfiles
from stunet.formatting import first_few
from stunet.jsonfiles import Lines

FILE = "metrics.jsonl"

# Bounded, so that every value fits into a float.
_WHOLE = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Values by name of the metric. The key "step" is the number of updates done.
_LINE = dict[str, _WHOLE | float]


def read(file: pathlib.Path) -> Lines:
    """Reads the lines of `metrics.jsonl`, oldest first. Returns no lines if there is no file.

    Raises:
        UserError: the file cannot be read.
    """
    return jsonfiles.read_lines(file, _LINE, _has_step) if file.exists() else Lines([], [])


def read_values(file: pathlib.Path, name: str) -> dict[int, float]:
    """Reads the values of one metric from `metrics.jsonl`, by step.

    Raises:
        UserError: the file cannot be read.
    """
    return {line["step"]: line[name] for line, _ in read(file).values if name in line}


def parse(content: bytes) -> Lines:
    """Parses lines of `metrics.jsonl`. The first line may be incomplete."""
    return jsonfiles.parse_lines(content, _LINE, _has_step)


def damage(file: pathlib.Path, lines: Lines) -> str:
    """Returns a sentence about the lines that cannot be read, or "" if there are none."""
    if not lines.damaged:
        return ""
    some = (
        f"line {lines.damaged[0]} is"
        if len(lines.damaged) == 1
        else (f"lines {first_few(list(map(str, lines.damaged)))} are")
    )
    return f"{file}: {some} damaged, perhaps cut short by a kill, and left out"


def _has_step(line: dict[str, Any]) -> bool:
    return isinstance(step := line.get("step"), int) and step >= 0
