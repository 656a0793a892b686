"""Estimates how much of the collectives' time a compiled step hides behind computation.

The instructions of a compiled TPU program run in the order of its text. A collective that starts
and ends in different instructions runs beside the instructions between them. Computation waits for
a collective that is one instruction. The text holds no times, so they are estimated here:

* A collective takes the time of a ring at the full speed of the device's links. This is a lower
  bound for groups of devices that do not use all links.
* The time of the step's computation is known as a whole (`stunet.plan.costs`). It is spread over
  the instructions by the bytes that they read and write.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from stunet.plan import hlo

# Instructions that take no time of their own, or whose parts are counted instead.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"),
    *("conditional", "copy-start", "copy-done", "after-all", "partition-id", "send", "recv"),
    *("send-done", "recv-done", "opt-barrier", "iota"),
}
_OPERANDS = re.compile(r"%([\w.\-]+)")
_RESULT = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = ")
_GROUPS = (
    re.compile(r"replica_groups=\{\{([\d,]+)\}"),
    re.compile(r"replica_groups=\[\d+,(\d+)\]"),
    re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}"),
)


@dataclasses.dataclass(frozen=True)
class Event:
    """Describes one place of the schedule: work, the start or end of a collective, or a loop.

    The attributes that belong to the other kinds of event keep their defaults.

    Attributes:
        work: bytes that the instructions here read and write.
        starts: name of a collective that starts here.
        sent: bytes that a device sends for the collective that starts here, over all links.
        hop: whether this collective sends over one link only.
        ends: name of a collective that is waited for here.
        body: events of a loop.
        trips: iterations of the loop.
    """

    work: float = 0
    starts: str = ""
    sent: float = 0
    hop: bool = False
    ends: str = ""
    body: tuple["Event", ...] = ()
    trips: int = 0


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Holds the time of the collectives of a step.

    Attributes:
        hidden: seconds of collectives during which computation goes on.
        exposed: seconds for which computation waits for collectives.
    """

    hidden: float
    exposed: float


def overlap(
    events: Sequence[Event], compute_seconds: float, links_speed: float, links: int
) -> Overlap:
    """Simulates the schedule: computation and links work side by side, and wait for each other.

    Args:
        events: schedule of the step (`read`).
        compute_seconds: time of all computation of the step.
        links_speed: bytes a second that a device sends over all its links.
        links: number of links of a device.
    """
    work = _total_work(events)
    rate = compute_seconds / work if work else 0.0
    now = free = total = 0.0
    ends: dict[str, float] = {}

    def play(events: Sequence[Event]) -> None:
        nonlocal now, free, total
        for event in events:
            now += event.work * rate
            if event.starts:
                seconds = event.sent * (links if event.hop else 1) / links_speed
                total += seconds
                free = ends[event.starts] = max(now, free) + seconds
            if event.ends:
                now = max(now, ends.get(event.ends, now))
            for _ in range(event.trips):
                play(event.body)

    play(events)
    exposed = max(0.0, now - work * rate)
    return Overlap(max(0.0, total - exposed), exposed)


def read(text: str) -> tuple[Event, ...]:
    """Returns the schedule in the text of a compiled module."""
    computations, entry = hlo.computations(text)
    return _read(computations, entry)


def _total_work(events: Sequence[Event]) -> float:
    return sum(e.work + e.trips * _total_work(e.body) for e in events)


def _read(computations: Mapping[str, list[str]], name: str) -> tuple[Event, ...]:
    lines = computations.get(name, [])
    places: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        for collective in _collectives(computations, line):
            places.setdefault(collective[0], []).append(i)
    sizes: dict[str, int] = {}
    events = []
    for i, line in enumerate(lines):
        found, opcode = _RESULT.match(line), hlo.OPCODE.match(line)
        if not found or not opcode:
            continue
        kind, result = opcode[2], sum(hlo.sizes(opcode[1] + "]"))
        sizes[found[1]] = result
        operands = _OPERANDS.findall(line[opcode.end() :].split("), ")[0])
        called = hlo.called(line)
        if kind == "while":
            trips = hlo.trips(line, computations.get(called["condition"][0], ()))
            events.append(Event(body=_read(computations, called["body"][0]), trips=trips))
        elif kind in ("call", "conditional"):
            branches = [_read(computations, c) for names in called.values() for c in names]
            events.extend(max(branches, key=_total_work, default=()))
        collectives = list(_collectives(computations, line))
        for key, sent, hop in collectives:
            if places[key][0] == i:
                events.append(Event(starts=key, sent=sent, hop=hop))
        if kind not in _FREE and kind.removesuffix("-start").removesuffix("-done") not in (
            hlo.COLLECTIVES
        ):
            events.append(Event(work=result + sum(sizes.get(name, 0) for name in operands)))
        for key, *_ in collectives:
            if places[key][-1] == i and not kind.endswith("-start"):
                events.append(Event(ends=key))
        if kind.endswith("-done") and operands:
            events.append(Event(ends=operands[0]))
    return tuple(_joined(events))


def _collectives(
    computations: Mapping[str, list[str]], line: str
) -> Iterator[tuple[str, float, bool]]:
    """Yields the name, `Event.sent` and `Event.hop` of each collective in a line or its fusion."""
    inside = [line]
    if " fusion(" in line:
        inside = [part for c in hlo.called(line).get("calls", ()) for part in computations[c]]
    for part in inside:
        opcode = hlo.OPCODE.match(part)
        if not opcode or opcode[2].removesuffix("-start") not in hlo.COLLECTIVES:
            continue
        kind, sizes = opcode[2].removesuffix("-start"), hlo.sizes(opcode[1] + "]")
        size = sum(sizes) if opcode[2] == kind else max(sizes, default=0)
        channel, own = hlo.CHANNEL.search(part), _RESULT.match(part)[1]
        beside = part is not line and channel
        yield channel[1] if beside else own, _sent(kind, size, part), kind == "collective-permute"


def _sent(kind: str, size: int, line: str) -> float:
    """Returns the bytes that a device sends for a collective whose result has `size` bytes."""
    group = _group(line)
    share = 1 - 1 / group if group else 1.0
    if kind == "reduce-scatter":
        return size * max((group or 2) - 1, 0)
    return size * {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)


def _group(line: str) -> int | None:
    """Returns the number of devices that take part in a collective; None if unknown."""
    listed, counted, mesh = (pattern.search(line) for pattern in _GROUPS)
    if listed:
        return listed[1].count(",") + 1
    if counted:
        return int(counted[1])
    if not mesh:
        return None
    extents = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
    product = 1
    for axis in re.findall(r"'(\w+)'", mesh[2]):
        product *= int(extents.get(axis, 1))
    return product


def _joined(events: Sequence[Event]) -> Iterator[Event]:
    """Yields the events with neighbouring work added up."""
    work = 0.0
    for event in events:
        if event.work:
            work += event.work
            continue
        if work:
            yield Event(work=work)
            work = 0.0
        yield event
    if work:
        yield Event(work=work)
