"""Whether a run fits chips, which need not be here, and how fast it will be: its train step,
compiled for them, as a whole for its memory and in pieces for its time."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import jax

from stunet import configs
from stunet.parallel import mesh as meshes
from stunet.plan import chips, hlo, whole
from stunet.plan.costs import Cost, Costs
from stunet.train.flops import model_flops
from stunet.train.parts import Parts, make_parts
from stunet.train.state import abstract_state, count_parameters


@dataclasses.dataclass(frozen=True)
class Plan:
    """One train step on one topology. Bytes, operations and seconds are of one chip, or as named.

    Attributes:
        chip: the generation, or what JAX calls a local device.
        chips: how many, in all slices.
        mesh: extent of each mesh axis.
        settings: what else was asked for and changes the answer.
        params: number of parameters that are trained.
        frozen: number of those that are not.
        bytes: by kind: params, frozen, optimizer, ema, batch, temporaries and, where it is known,
            (program) code.
        hbm: bytes that a chip has for a program; None if that is not known.
        over: bytes that are lacking; 0 if it fits; None if that is not known.
        flops: of the model in a step, all chips: three times those of the forward pass, twice where
            parameters are frozen, without what is computed anew.
        peak_flops: a second, in bfloat16; None if that is not known.
        step_seconds: the sum of `costs`, by the compiler's estimate of its kernels; None if it was
            not asked for, or the program does not fit.
        collective_seconds: what collectives within a slice take at the links' full speed, if
            nothing hides them.
        collectives: by kind; on TPUs, those within a slice.
        between_slices: by kind, those that cross the data-centre network.
        costs: of the network's distinct pieces, the costliest first.
        fallbacks: levels that the mesh does not split as asked.
        clips: in a step.
        steps: of the whole run.
        unknown: what this cannot say.
        compile_seconds: what finding this out took.
    """

    chip: str
    chips: int
    mesh: dict[str, int]
    settings: dict[str, Any]
    params: int
    frozen: int
    bytes: dict[str, float]
    hbm: float | None
    over: float | None
    flops: float
    peak_flops: float | None
    step_seconds: float | None
    collective_seconds: float | None
    collectives: dict[str, hlo.Collective]
    between_slices: dict[str, hlo.Collective]
    costs: list[Cost]
    fallbacks: list[str]
    clips: int
    steps: int
    unknown: list[str]
    compile_seconds: float

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation that the predicted time implies, were all collectives hidden."""
        if self.step_seconds is None or self.peak_flops is None:
            return None
        return self.flops / self.chips / self.peak_flops / self.step_seconds


def make_plan(
    config: configs.Experiment,
    chip: chips.Chip,
    devices: Sequence[jax.Device],
    topology: tuple[str, int] | None = None,
    costs: Costs | None = None,
) -> Plan:
    """Compiles the train step for `devices`.

    Args:
        config: of the run; `mesh` says how it lies on the devices.
        chip: what the devices are.
        devices: of a topology (`chips.devices`).
        topology: its name and number of slices, if the devices are TPUs that are not here.
        costs: of the same config on the same topology; without them no time is predicted.

    Raises:
        UserError: mesh, batch and devices do not go together.
    """
    begun = time.monotonic()
    parts = make_parts(config)
    mesh = meshes.make_mesh(parts.layout, devices)
    meshes.check_batch(parts.batch_size, parts.accumulate, mesh)
    state = abstract_state(parts.denoiser, parts.optimizer, mesh)
    batch = whole.abstract_batch(parts, mesh)
    sizes = {
        "params": _bytes_on_a_chip(state.params),
        "frozen": _bytes_on_a_chip(state.frozen),
        "optimizer": _bytes_on_a_chip(state.opt_state),
        "ema": _bytes_on_a_chip(state.ema),
        "batch": _bytes_on_a_chip(batch),
    }
    step = whole.lay_out(config, *topology) if topology else whole.compile_local(parts, devices)
    if step.temporaries is None:
        sizes["temporaries"] = max(0.0, step.used - sum(sizes.values()))
        over = step.over
    else:
        sizes["temporaries"] = step.temporaries
        if step.code is not None:
            sizes["code"] = step.code
        over = None if chip.hbm is None else max(0.0, sum(sizes.values()) - chip.hbm)
    timed = costs.result() if costs and not over else []
    return Plan(
        chip=chip.name,
        chips=len(devices),
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
        over=over,
        flops=model_flops(parts.denoiser, parts.batch_size),
        peak_flops=chip.flops,
        step_seconds=sum(cost.seconds for cost in timed) if timed else None,
        collective_seconds=hlo.bytes_sent(step.program.collectives) / chip.ici if timed else None,
        collectives=dict(step.program.collectives),
        between_slices=dict(step.program.between_slices),
        costs=timed,
        fallbacks=fallbacks(parts, mesh),
        clips=parts.batch_size,
        steps=parts.events.steps,
        unknown=_unknown(parts, chip, devices, step),
        compile_seconds=time.monotonic() - begun,
    )


def fallbacks(parts: Parts, mesh: jax.sharding.Mesh) -> list[str]:
    """The levels of which each chip computes all along an axis that the mesh was to split."""
    clip, network, found = parts.denoiser.clip, parts.denoiser.network, []
    axis, frames = parts.layout.context_axis, clip.frames
    for level, channels in enumerate(network.channels):
        frames //= network.temporal_factors[level] if network.temporal_factors else 1
        rows = clip.height // network.patch_size // 2**level
        split = {"rows": rows, "frames": frames}[axis]
        for extent, what, name in ((split, axis, "context"), (channels, "features", "tensor")):
            if extent % mesh.shape[name]:
                found.append(
                    f"level {level}: {extent} {what} do not split over {name} {mesh.shape[name]}"
                )
    return found


def _unknown(
    parts: Parts, chip: chips.Chip, devices: Sequence[jax.Device], step: whole.Whole
) -> list[str]:
    cases = (
        (parts.denoiser.network.flash_attention, "what the kernels of model.flash_attention take"),
        (chip.hertz is None, "how long a step takes, which benchmarks/train_step.py measures"),
        (chip.hbm is None, "how much memory a device has for it"),
        (step.code is None, "how large the program itself is, some hundred MiB at most"),
        (chip.flops is None, "the peak of a device"),
        (meshes.count_slices(devices) > 1, "what the data-centre network takes"),
        (len(devices) > 1, "how much of the collectives is hidden"),
        (True, "whether the data keep up"),
    )
    return [what for applies, what in cases if applies]


def _bytes_on_a_chip(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
