"""Reads cycles and collectives of a step from the text of a compiled TPU program.

The compiler's own totals (`cost_analysis`) count the body of a loop once. This module counts each
iteration. The compiler estimates the cycles of each kernel when it chooses the kernel's tiling.
These estimates leave out the time of collectives.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
OPCODE = re.compile(r"^\s*(?:ROOT )?%[\w.\-]+ = (.*?)[\])}] ([a-z][\w\-]*)\(")
_CALLED = re.compile(
    r"(calls|body|condition|to_apply|branch_computations)=\{?(%[\w.\-]+(?:, *%[\w.\-]+)*)"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# A transfer between slices is not a collective of the slice's program: the program hands it to the
# runtime of the data-centre network.
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step.

    Attributes:
        count: number of times that a collective of this kind runs.
        bytes: bytes of the results of all these collectives, on one chip.
    """

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
    """The program of a step, on one chip.

    Attributes:
        cycles: cycles that the compiler estimates, without collectives.
        collectives: collectives by kind. With several TPU slices, these are only the collectives
            within a slice.
        between_slices: collectives between TPU slices, by kind.
    """

    cycles: int
    collectives: Mapping[str, Collective]
    between_slices: Mapping[str, Collective]


def read(text: str) -> Program:
    """Reads the text of a compiled module (`Compiled.as_text()`)."""
    parts, entry = computations(text)
    runs = _runs(parts, entry)
    fused = {
        name
        for lines in parts.values()
        for line in lines
        if " fusion(" in line
        for kind, names in _CALLED.findall(line)
        if kind == "calls"
        for name in _names(names)
    }
    cycles = 0
    within, between = {}, []
    for name, lines in parts.items():
        for line in lines:
            if (estimate := _CYCLES.search(line)) and name not in fused:
                cycles += int(estimate[1]) * runs.get(name, 0)
            if match := OPCODE.match(line):
                kind, results = match[2].removesuffix("-start"), sizes(match[1] + "]")
                if kind in COLLECTIVES:
                    # The result of a start holds what is sent and what is received. The result of
                    # any other collective is what is received.
                    size = max(results, default=0) if match[2] != kind else sum(results)
                    # A collective that runs beside several kernels is written in each of them, and
                    # once more where it ends.
                    channel = CHANNEL.search(line)
                    key = (kind, channel[1]) if channel else len(within)
                    found = (kind, runs.get(name, 0), size)
                    within[key] = max(found, within.get(key, found))
                elif kind == "recv" and (transfer := _MEGASCALE.search(line)):
                    # The result holds a number of the transfer beside the received array.
                    kind = transfer[1].lower().replace("_", "-")
                    between.append((kind, runs.get(name, 0), max(results, default=0)))
    return Program(cycles, _totals(within.values()), _totals(between))


def _totals(found: Iterable[tuple[str, int, int]]) -> dict[str, Collective]:
    """Sums collectives by kind, given (kind, how often it runs, bytes of one result)."""
    totals = {kind: Collective(0, 0) for kind in COLLECTIVES}
    for kind, times, size in found:
        total = totals.get(kind, Collective(0, 0))
        totals[kind] = Collective(total.count + times, total.bytes + times * size)
    return {kind: total for kind, total in totals.items() if total.count}


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation, and the name of the program's main computation."""
    found, entry, lines = {}, "", []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = found.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    return found, entry


def _runs(computations: Mapping[str, list[str]], entry: str) -> dict[str, int]:
    """Returns how often each computation runs in a step."""
    runs: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        runs[name] = runs.get(name, 0) + times
        for line in computations.get(name, ()):
            called = [(kind, c) for kind, names in _CALLED.findall(line) for c in _names(names)]
            times_more = 1
            if " while(" in line:
                conditions = [c for kind, c in called if kind == "condition"]
                times_more = trips(line, computations.get(conditions[0], ()))
            for _, callee in called:
                visit(callee, times * times_more)

    visit(entry, 1)
    return runs


def trips(line: str, condition) -> int:
    """Returns how many iterations a loop has.

    The number comes from the compiler's note in `line`. Without a note, it is the largest constant
    in the loop's condition.
    """
    if known := _TRIPS.search(line):
        return int(known[1])
    limits = [int(n) for c in condition for n in re.findall(r" constant\((\d+)\)", c)]
    return max(limits, default=1)


def called(line: str) -> dict[str, list[str]]:
    """Returns the computations that an instruction calls, by their role, such as "body"."""
    return {role: _names(names) for role, names in _CALLED.findall(line)}


def _names(text: str) -> list[str]:
    return [name.strip().lstrip("%") for name in text.split(",") if name.strip()]


def sizes(shapes: str) -> list[int]:
    """Returns the bytes of each array in a result."""
    return [
        BYTES[kind] * math.prod(int(n) for n in extents.split(",") if n)
        for kind, extents in _SHAPE.findall(shapes)
        if kind in BYTES
    ]
