"""A plan as text, and as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from stunet.plan.chips import Chip
from stunet.plan.plan import Plan
from stunet.plan.search import Candidate

_GIB = 2**30


def text(plan: Plan) -> str:
    """The plan, for people."""
    total = sum(plan.bytes.values())
    mesh = _mesh(plan.mesh)
    lines = [
        f"{plan.chips} x {plan.chip}   mesh {mesh}",
        "  ".join(f"{k}={v}" for k, v in plan.settings.items()),
        f"{plan.params + plan.frozen:,} parameters, "
        + (f"{plan.params:,} trained and {plan.frozen:,} frozen" if plan.frozen else "all trained"),
        "",
        f"memory of a chip ({'not known' if plan.hbm is None else f'{plan.hbm / _GIB:.2f} GiB'})",
        *(f"  {kind:<12} {_size(size)}" for kind, size in plan.bytes.items() if size),
        f"  {'peak':<12} {_size(total)}" + (f", {total / plan.hbm:.0%}" if plan.hbm else ""),
    ]
    if plan.over:
        lines += [f"DOES NOT FIT, by {plan.over / _GIB:.2f} GiB"]
    lines += [
        "",
        f"model FLOPs of a step  {plan.flops:.3g}, of a chip {plan.flops / plan.chips:.3g}",
    ]
    if plan.step_seconds is None and plan.peak_flops is not None:
        fastest = plan.flops / plan.chips / plan.peak_flops
        lines += [f"at a chip's peak       {fastest:.3g} s, faster than which no step can be"]
    if plan.step_seconds is not None:
        rate = plan.clips / plan.step_seconds
        hours = plan.steps * plan.step_seconds * plan.chips / 3600
        lines += [
            f"predicted step time    {plan.step_seconds:.3f} s, if collectives hide behind it; "
            f"alone they take {plan.collective_seconds:.3f} s",
            f"model FLOPs utilised   {plan.mfu:.1%}",
            f"clips/s                {rate:.1f}",
            f"chip-hours             {hours:,.0f} for {plan.steps:,} steps",
        ]
        lines += ["", "what takes longest (noise, loss and the optimiser's update are left out)"]
        lines += [
            f"  {cost.seconds / plan.step_seconds:6.1%}  {cost.calls:3d} x {cost.name}"
            + (f", from {cost.scaled_from}" if cost.scaled_from else "")
            for cost in plan.costs[:12]
        ]
    for where, collectives in (
        ("collectives of a step, on each chip", plan.collectives),
        ("of a step, between slices, from each chip", plan.between_slices),
    ):
        if collectives:
            lines += ["", where]
            lines += [
                f"  {kind:<20} {c.count:6d}  {_size(c.bytes)}" for kind, c in collectives.items()
            ]
    lines += ["", *(plan.fallbacks or ["every level splits as the mesh asks"])]
    lines += [
        "",
        f"compiled in {plan.compile_seconds:.0f} s; not known here: {'; '.join(plan.unknown)}",
    ]
    return "\n".join(lines)


def ranking(candidates: Sequence[Candidate], chip: Chip, most: int = 10) -> str:
    """What the search found, for people: the first so many."""
    lines = [
        f"{len(candidates)} layouts are estimated to fit {chip.name}; the fastest, by what a step "
        "takes at least:",
        "   at least   a chip holds about   remat        microbatches   mesh",
    ]
    lines += [
        f"  {c.seconds:7.3f} s   {_size(c.bytes)} of {_size(chip.hbm).strip():10} "
        f"{c.remat:<12} {c.accumulate:<14} {_mesh(c.mesh)}"
        for c in candidates[:most]
    ]
    return "\n".join(lines)


def _mesh(extents: Mapping[str, int]) -> str:
    return " x ".join(f"{axis} {n}" for axis, n in extents.items() if n > 1) or "1"


def _size(size: float) -> str:
    return f"{size / _GIB:8.2f} GiB" if size >= _GIB else f"{size / 2**20:8.2f} MiB"


def as_json(plan: Plan) -> str:
    """The plan, for programs: its fields, with `mfu` and `fits`, which are null if not known."""
    fits = None if plan.over is None else not plan.over
    return json.dumps(dataclasses.asdict(plan) | {"mfu": plan.mfu, "fits": fits}, default=_plain)


def _plain(value):
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
