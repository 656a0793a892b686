"""Writes a plan as text for people, and as JSON for programs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stunet.plan.chips import Topology
from stunet.plan.hlo import Collective
from stunet.plan.plan import Plan
from stunet.plan.search import Layout

_GIB = 2**30
_PIECES_SHOWN = 12

_ESTIMATE = """\
This is an estimate from traces of the network, not a compiled program. For TPUs, the estimated
memory lay 6% to 40% above the compiled program's."""

_INSTALL = "With JAX's CUDA plugin (pip install 'stunet[cuda]'), stunet plan compiles for GPUs too."

_GPU_MEMORY = """\
JAX may use three quarters of a GPU's memory. With XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 in the
environment it may use 90%, here and in training."""


def as_text(plans: Mapping[str, Plan]) -> str:
    """Returns the plan of each bucket as text, for people.

    Args:
        plans: plans of the runs on each bucket alone (`stunet.train.parts.bucket_configs`), by the
            bucket's name.
    """
    if len(plans) == 1:
        (plan,) = plans.values()
        return _as_text(plan)
    texts = [
        f"clips of {name}, {plan.clips} in a step, {plan.steps:,} steps\n\n{_as_text(plan)}"
        for name, plan in plans.items()
    ]
    return f"\n\n{'-' * 72}\n\n".join([*texts, "\n".join(_all_buckets(plans))])


def _all_buckets(plans: Mapping[str, Plan]) -> list[str]:
    """Returns the lines about the whole run, whose steps differ."""
    steps = sum(plan.steps for plan in plans.values())
    largest = max(plans, key=lambda name: sum(plans[name].bytes.values()))
    peak = sum(plans[largest].bytes.values())
    unit = _unit(plans[largest])
    lines = [
        f"the run, whose steps are of {len(plans)} kinds",
        f"peak memory of a {unit}   {_size(peak).strip()}, in steps on clips of {largest}",
    ]
    seconds = [plan.step_seconds for plan in plans.values()]
    if None not in seconds:
        total = sum(s * plan.steps for s, plan in zip(seconds, plans.values(), strict=True))
        chips = plans[largest].chips
        lines += [
            f"mean time of a step     {_seconds(total / steps).strip()}",
            f"chip-hours              {total * chips / 3600:,.0f} for {steps:,} steps",
        ]
    return lines


def _as_text(plan: Plan) -> str:
    paragraphs = [
        _run(plan),
        _notes(plan),
        _memory(plan),
        _time(plan),
        _pieces(plan),
        _collectives(f"collectives of a step, on each {_unit(plan)}", plan.collectives),
        _collectives(f"collectives between slices, from each {_unit(plan)}", plan.between_slices),
        plan.unsplit or ["every level splits as the mesh asks"],
        [
            f"{'estimated' if plan.estimated else 'compiled'} in {plan.compile_seconds:.0f} s",
            "not known here:",
            *(f"  - {what}" for what in plan.unknown),
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def _run(plan: Plan) -> list[str]:
    return [
        f"{plan.chips} x {plan.chip}{_halves(plan)}   mesh: {_mesh(plan.mesh)}",
        "  ".join(f"{key}={value}" for key, value in plan.settings.items()),
        f"{plan.params + plan.frozen:,} parameters, "
        + (f"{plan.params:,} trained and {plan.frozen:,} frozen" if plan.frozen else "all trained"),
    ]


def _unit(plan: Plan) -> str:
    return "chip" if plan.devices == plan.chips else "device"


def _halves(plan: Plan) -> str:
    each = plan.devices // plan.chips
    return f", of {each} devices each," if each > 1 else ""


def _notes(plan: Plan) -> list[str]:
    on_gpu = plan.platform in ("cuda", "gpu")
    notes = (
        (plan.estimated, _ESTIMATE),
        (plan.estimated and on_gpu, _INSTALL),
        (on_gpu, _GPU_MEMORY),
    )
    return [note for applies, note in notes if applies]


def _memory(plan: Plan) -> list[str]:
    total = sum(plan.bytes.values())
    available = "size not known" if plan.hbm is None else f"{plan.hbm / _GIB:.2f} GiB"
    lines = [
        f"memory of a {_unit(plan)} ({available})",
        *(f"  {kind:<12} {_size(size)}" for kind, size in plan.bytes.items() if size),
        f"  {'peak':<12} {_size(total)}" + (f", {total / plan.hbm:.0%}" if plan.hbm else ""),
    ]
    if plan.excess is not None:
        said = "by this estimate, it" if plan.estimated else "it"
        lines.append(
            f"{said} DOES NOT FIT: {plan.excess / _GIB:.2f} GiB too much"
            if plan.excess
            else f"{said} fits"
        )
    return lines


def _time(plan: Plan) -> list[str]:
    each = f"of a {_unit(plan)} {plan.flops / plan.devices:.3g}"
    lines = [f"model FLOPs of a step   {plan.flops:.3g}; {each}"]
    if plan.step_seconds is None:
        if plan.least_seconds is not None:
            lines += [
                f"lower bound of a step   {plan.least_seconds:.3g} s, at the chip's peak; real "
                "steps take longer"
            ]
        return lines
    hours = plan.steps * plan.step_seconds * plan.chips / 3600
    return [
        *lines,
        "predicted time of a step, by the compiler's estimate of its kernels",
        *(f"  {part:<21} {_seconds(seconds)}" for part, seconds in plan.seconds.items()),
        f"  {'step':<21} {_seconds(plan.step_seconds)}",
        f"  computation hides another {_seconds(plan.hidden_seconds).strip()} of collectives",
        f"model FLOPs utilised    {plan.mfu:.1%} of the peak",
        f"clips/s                 {plan.clips / plan.step_seconds:.1f}",
        f"chip-hours              {hours:,.0f} for {plan.steps:,} steps",
    ]


def _pieces(plan: Plan) -> list[str]:
    if not plan.step_seconds:
        return []
    lines = [
        f"  {cost.seconds / plan.step_seconds:6.1%}  {cost.calls:3d} x {cost.name}"
        + (f", scaled from {cost.scaled_from}" if cost.scaled_from else "")
        for cost in plan.costs[:_PIECES_SHOWN]
    ]
    return ["blocks that take longest, with their share of the step", *lines]


def _collectives(title: str, collectives: Mapping[str, Collective]) -> list[str]:
    if not collectives:
        return []
    rows = [f"  {kind:<20} {c.count:6d}  {_size(c.bytes)}" for kind, c in collectives.items()]
    return [title, *rows]


def ranking(layouts: Sequence[Layout], topology: Topology, most: int = 10) -> str:
    """Returns the fastest layouts that the search found, as text for people.

    Args:
        layouts: layouts from `search.rank`, the fastest first.
        topology: topology of the search.
        most: number of layouts to show.
    """
    hbm = _size(topology.chip.hbm).strip()
    lines = [
        f"{len(layouts)} layouts are estimated to fit {topology.count} x {topology.chip.name} of "
        f"{hbm}. The fastest, by the lower bound of a step's time:",
        "   at least   memory of a chip   remat        microbatches   mesh",
        *(
            f"  {layout.seconds:7.3f} s   {_size(layout.bytes):<18} {layout.remat:<12} "
            f"{layout.accumulate:<14} {_mesh(layout.mesh)}"
            for layout in layouts[:most]
        ),
    ]
    return "\n".join(lines)


def as_json(plans: Mapping[str, Plan]) -> str:
    """Returns the plan of each bucket as JSON, for programs.

    The JSON of a plan holds its fields, `step_seconds`, `mfu` and `fits`. Unknown values are null.
    If there are several buckets, the JSON holds that of each plan by the bucket's name.

    Args:
        plans: as for `as_text`.
    """
    made = {name: _as_json(plan) for name, plan in plans.items()}
    return json.dumps(made if len(made) > 1 else next(iter(made.values())))


def _as_json(plan: Plan) -> dict[str, Any]:
    fits = None if plan.excess is None else not plan.excess
    derived = {"step_seconds": plan.step_seconds, "mfu": plan.mfu, "fits": fits}
    return dataclasses.asdict(plan) | derived


def _mesh(extents: Mapping[str, int]) -> str:
    return " x ".join(f"{axis} {n}" for axis, n in extents.items() if n > 1) or "one chip"


def _seconds(seconds: float) -> str:
    return f"{seconds:8.3f} s" if seconds >= 0.1 else f"{1000 * seconds:7.2f} ms"


def _size(size: float) -> str:
    return f"{size / _GIB:8.2f} GiB" if size >= _GIB else f"{size / 2**20:8.2f} MiB"
