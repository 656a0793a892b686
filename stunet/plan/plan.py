"""The plan of a run: does its train step fit the chips, and how fast is it?

This machine need not have the chips. The train step is compiled for them as a whole, which gives
its memory. For TPUs, the network's distinct blocks are also compiled one by one, which gives the
step's time. Without a compiler, or if the user asks for an estimate, the plan is an estimate from
traces (`stunet.plan.search`).
"""

import contextlib
import dataclasses
import math
import time
from typing import Any

import jax

from stunet import configs
from stunet.parallel import mesh as meshes
from stunet.plan import chips, compiled_step, hlo, schedule, search
from stunet.plan.costs import Cost, Costs
from stunet.train.measured.flops import model_flops
from stunet.train.parts import Parts, make_parts
from stunet.train.program import abstract_batch
from stunet.train.state import abstract_state, count_parameters


@dataclasses.dataclass(frozen=True)
class Plan:
    """One train step on one topology.

    Bytes, operations and seconds are for one device, unless the attribute says otherwise. A chip is
    one device, except for TPU7x: JAX counts each half of such a chip as a device.

    Attributes:
        chip: name of the chip; for a local device, JAX's name of its kind.
        platform: JAX's name of the chips' platform (`chips.Topology`).
        devices: number of devices, in all TPU slices or hosts together.
        chips: number of chips that have these devices.
        estimated: True if the plan is an estimate from traces, False if the step was compiled.
        mesh: extent of each mesh axis.
        settings: the other settings that change memory and time most, as values by config key, such
            as `model.remat`.
        params: number of trained parameters.
        frozen: number of frozen parameters.
        bytes: memory by kind. The kinds are params, frozen, optimizer, ema, batch, temporaries and,
            if its size is known, the program's code.
        hbm: bytes that a device has for a program; None if unknown.
        excess: bytes by which the program exceeds `hbm`; 0 if it fits; None if unknown.
        flops: operations of the model in a step, on all devices together. Each block counts as
            three times the operations of its forward pass, or as two times if its parameters are
            frozen. Operations that remat repeats are not counted.
        peak_flops: peak operations a second of one device, in bfloat16; None if unknown.
        least_seconds: lower bound of the time of a step; None if the peak is unknown.
        seconds: predicted time of each part of a step. The parts are blocks (the sum of `costs`),
            noise and loss, update, and exposed collectives. Exposed collectives are those within a
            TPU slice for which computation waits. Empty if no time was asked for, if the
            program does not fit, or if no compiler estimates the time.
        hidden_seconds: time of the collectives within a TPU slice that computation hides; None if
            `seconds` is empty.
        collectives: collectives by kind. With several TPU slices, these are only the collectives
            within a slice.
        between_slices: collectives between TPU slices, by kind.
        costs: time of each distinct block of the network, the costliest first.
        unsplit: a line for each level that the mesh cannot split evenly (`unsplit_levels`).
        clips: number of clips in a step.
        steps: number of updates in the whole run.
        unknown: descriptions of what the plan cannot predict.
        compile_seconds: time that it took to make the plan, on this machine.
    """

    chip: str
    platform: str
    devices: int
    chips: int
    estimated: bool
    mesh: dict[str, int]
    settings: dict[str, Any]
    params: int
    frozen: int
    bytes: dict[str, float]
    hbm: float | None
    excess: float | None
    flops: float
    peak_flops: float | None
    least_seconds: float | None
    seconds: dict[str, float]
    hidden_seconds: float | None
    collectives: dict[str, hlo.Collective]
    between_slices: dict[str, hlo.Collective]
    costs: list[Cost]
    unsplit: list[str]
    clips: int
    steps: int
    unknown: list[str]
    compile_seconds: float

    @property
    def step_seconds(self) -> float | None:
        """Returns the predicted time of a step, the sum of its parts; None if it is unknown."""
        return sum(self.seconds.values()) if self.seconds else None

    @property
    def mfu(self) -> float | None:
        """Returns the model FLOPs utilisation that follows from the predicted time.

        The result is None if the time or the chip's peak is unknown.
        """
        if self.step_seconds is None or self.peak_flops is None:
            return None
        return self.flops / self.devices / self.peak_flops / self.step_seconds


def make_plan(
    config: configs.Experiment,
    topology: chips.Topology,
    predict_time: bool = True,
    every_piece: bool = False,
) -> Plan:
    """Plans a run on a topology.

    Args:
        config: config of the run; its `mesh` says how the run is split over the chips.
        topology: chips to plan for.
        predict_time: also predict the time of a step. It is predicted for a topology of TPUs only,
            and not for `local`: the times are estimates of XLA's compiler for TPUs.
        every_piece: compile every distinct block of the network to predict the time. False scales
            the times of some blocks from the time of a narrower block (`costs.representatives`).

    Raises:
        UserError: the mesh, the batch size and the number of chips do not fit together.
    """
    begun = time.monotonic()
    parts = make_parts(config)
    # Any mesh axis may cross between hosts with GPUs, but only `slice` between slices of TPUs.
    slices = topology.slices if topology.platform == "tpu" else 1
    mesh = meshes.abstract_mesh(parts.layout, topology.count, slices)
    meshes.check_batch(parts.batch_size, parts.accumulate, mesh)
    state = abstract_state(parts.denoiser, parts.optimizer, mesh)
    sizes = {
        "params": bytes_on_a_chip(state.params),
        "frozen": bytes_on_a_chip((state.frozen, state.teacher)),
        "optimizer": bytes_on_a_chip(state.opt_state),
        "ema": bytes_on_a_chip((state.ema, state.power_ema)),
        "batch": bytes_on_a_chip(abstract_batch(parts, mesh)),
    }
    more_passes = parts.objective.more_passes
    chip, flops = topology.chip, model_flops(parts.denoiser, parts.batch_size, more_passes)
    step, timed, seconds = None, [], {}
    excess = hidden_seconds = None
    least_seconds = flops / topology.count / chip.flops if chip.flops else None
    if topology.devices:
        with _pieces(config, topology, predict_time, every_piece) as pieces:
            step = compiled_step.compile_step(config, topology)
            sizes |= _step_bytes(step, sum(sizes.values()))
            excess = step.excess or _excess(sizes, chip)
            if pieces and not excess:
                timed = pieces.result()
                seconds = {"blocks": sum(cost.seconds for cost in timed)} | pieces.outside()
        if seconds:
            waits = schedule.overlap(step.events, sum(seconds.values()), chip.ici, chip.links)
            seconds["exposed collectives"] = waits.exposed
            hidden_seconds = waits.hidden
    else:
        layout = _estimate(parts, topology, mesh)
        sizes["temporaries"] = layout.temporaries
        excess, least_seconds = _excess(sizes, chip), layout.seconds
    return Plan(
        chip=chip.name,
        platform=topology.platform,
        devices=topology.count,
        chips=topology.chips,
        estimated=step is None,
        mesh=dict(mesh.shape),
        settings={
            "mesh.context_axis": parts.layout.context_axis,
            "model.remat": parts.denoiser.network.remat,
            "train.batch_size": parts.batch_size,
            "train.accumulate": parts.accumulate,
        },
        params=count_parameters(state.params),
        frozen=count_parameters(state.frozen),
        bytes=sizes,
        hbm=chip.hbm,
        excess=excess,
        flops=flops,
        peak_flops=chip.flops,
        least_seconds=least_seconds,
        seconds=seconds,
        hidden_seconds=hidden_seconds,
        collectives=dict(step.program.collectives) if step else {},
        between_slices=dict(step.program.between_slices) if step else {},
        costs=timed,
        unsplit=unsplit_levels(parts, mesh),
        clips=parts.batch_size,
        steps=parts.events.steps,
        unknown=_unknown(parts, topology, step),
        compile_seconds=time.monotonic() - begun,
    )


def unsplit_levels(parts: Parts, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> list[str]:
    """Names the levels of the network where the mesh cannot split an axis evenly.

    At such a level, every chip computes the whole axis. The result has one line of text for each
    level and axis.
    """
    clip, network, found = parts.denoiser.clip, parts.denoiser.network_of_clips, []
    context_axis, frames = parts.layout.context_axis, clip.frames
    for level, channels in enumerate(network.channels):
        frames //= network.temporal_factors[level] if network.temporal_factors else 1
        rows = clip.height // network.patch_size // 2**level
        split = {"rows": rows, "frames": frames}[context_axis]
        for extent, what, axis in (
            (split, context_axis, "context"),
            (channels, "features", "tensor"),
        ):
            if extent % mesh.shape[axis]:
                found.append(
                    f"level {level}: {extent} {what} do not split over {axis} {mesh.shape[axis]}"
                )
    return found


def bytes_on_a_chip(tree: Any) -> int:
    """Returns how many bytes of a tree of abstract arrays with shardings one chip holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _pieces(
    config: configs.Experiment, topology: chips.Topology, predict_time: bool, every_piece: bool
) -> contextlib.AbstractContextManager[Costs | None]:
    """Starts to compile the network's blocks, if their time is asked for and can be predicted."""
    if topology.platform != "tpu" or topology.is_local or not predict_time:
        return contextlib.nullcontext()
    return Costs(config, topology.name, topology.slices, scale=not every_piece)


def _estimate(
    parts: Parts, topology: chips.Topology, mesh: jax.sharding.AbstractMesh
) -> search.Layout:
    return search.estimate(
        parts,
        search.trace(parts.denoiser, topology.platform),
        search.state_bytes(parts),
        topology.chip,
        mesh.shape,
        parts.denoiser.network.remat,
        parts.accumulate,
    )


def _step_bytes(step: compiled_step.CompiledStep, arguments: float) -> dict[str, float]:
    """Returns the bytes that a step takes in addition to its arguments, by kind."""
    if step.temporaries is None:
        return {"temporaries": max(0.0, step.used - arguments)}
    code = {} if step.code is None else {"code": step.code}
    return {"temporaries": step.temporaries} | code


def _excess(sizes: dict[str, float], chip: chips.Chip) -> float | None:
    return None if chip.hbm is None else max(0.0, sum(sizes.values()) - chip.hbm)


def _unknown(
    parts: Parts, topology: chips.Topology, step: compiled_step.CompiledStep | None
) -> list[str]:
    chip = topology.chip
    cases = (
        (
            parts.denoiser.network.flash_attention,
            "the time of the kernels of model.flash_attention",
        ),
        (
            parts.objective.more_passes > 0,
            "the time of the passes of the teacher, and of the student after the teacher's step",
        ),
        (
            chip.hertz is None,
            "how long a step really takes, which benchmarks/train_step.py measures on the machine",
        ),
        (chip.hbm is None, "how much memory a device has for the program"),
        (
            step is None,
            "how far the compiled program's memory lies from this estimate, and its collectives",
        ),
        (
            topology.platform == "cuda",
            "the workspace of convolutions, which autotuning on the GPU chooses",
        ),
        (
            step is not None and step.code is None,
            "the size of the machine code, some hundred MiB at most",
        ),
        (chip.flops is None, "the peak of a device"),
        (topology.slices > 1, "the time that the data-centre network takes"),
        (True, "whether the data pipeline keeps up"),
    )
    return [what for applies, what in cases if applies]
