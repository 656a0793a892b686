"""Whether a run fits chips, which need not be here, and how fast it will be: its train step,
compiled for them, as a whole for its memory and in pieces for its time."""

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips, flops, hlo, pieces
from stunet.train.state import abstract_state, count_parameters, input_shape, make_network
from stunet.train.step import jit_train_step

# Platform -> options to compile in a sixth of the time, to a program as large but much slower: to
# see what fits.
_QUICK = {"tpu": {"exec_time_optimization_effort": -1.0}}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One train step on one topology. Bytes, operations and seconds are of one chip, or as named.

    Attributes:
        chip: the generation, or what JAX calls a local device.
        chips: how many, in all slices.
        mesh: extent of each mesh axis.
        settings: what else was asked for and changes the answer.
        params: number of parameters, all of which are trained.
        bytes: by kind: params, optimizer, ema, batch, temporaries and (program) code.
        hbm: bytes that a chip has for a program; None if that is not known.
        over: bytes that are lacking; 0 if it fits; None if that is not known.
        flops: of the model in a step, all chips: three times those of the forward pass, without
            what is computed anew.
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
    bytes: dict[str, float]
    hbm: float | None
    over: float | None
    flops: float
    peak_flops: float | None
    step_seconds: float | None
    collective_seconds: float | None
    collectives: dict[str, hlo.Collective]
    between_slices: dict[str, hlo.Collective]
    costs: list[pieces.Cost]
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
    config: configs.Config,
    chip: chips.Chip,
    devices: Sequence[jax.Device],
    costs: pieces.Costs | None = None,
) -> Plan:
    """Compiles the train step for `devices`.

    Args:
        config: of the run; `mesh` says how it lies on the devices.
        chip: what the devices are.
        devices: of a topology (`chips.devices`).
        costs: of the same config on the same topology; without them no time is predicted.

    Raises:
        UserError: mesh, batch and devices do not go together.
    """
    begun = time.monotonic()
    mesh = meshes.make_mesh(config.mesh, devices)
    meshes.check_batch(config.train, mesh)
    with meshes.use(mesh, config.mesh.clip_axis):
        state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
        lowered = jit_train_step(config, state).lower(state, batch)
        compiled, over, used = _compile(lowered, _QUICK.get(devices[0].platform))
    sizes = {
        "params": _bytes_on_a_chip(state.params),
        "optimizer": _bytes_on_a_chip(state.opt_state),
        "ema": _bytes_on_a_chip(state.ema),
        "batch": _bytes_on_a_chip(batch),
    }
    if compiled is None:
        sizes["temporaries"] = max(0.0, used - sum(sizes.values()))
        program = hlo.Program(0, {}, {})
    else:
        memory = compiled.memory_analysis()
        sizes["temporaries"] = memory.temp_size_in_bytes
        sizes["code"] = memory.generated_code_size_in_bytes
        over = None if chip.hbm is None else max(0.0, sum(sizes.values()) - chip.hbm)
        program = hlo.read(compiled.as_text())
    timed = costs.result() if costs and not over else []
    return Plan(
        chip=chip.name,
        chips=len(devices),
        mesh=dict(mesh.shape),
        settings={
            "mesh.clip_axis": config.mesh.clip_axis,
            "model.remat": config.model.remat,
            "train.batch_size": config.train.batch_size,
            "train.accumulate": config.train.accumulate,
        },
        params=count_parameters(state.params),
        bytes=sizes,
        hbm=chip.hbm,
        over=over,
        flops=model_flops(config),
        peak_flops=chip.flops,
        step_seconds=sum(cost.seconds for cost in timed) if timed else None,
        collective_seconds=hlo.bytes_sent(program.collectives) / chip.ici if timed else None,
        collectives=dict(program.collectives),
        between_slices=dict(program.between_slices),
        costs=timed,
        fallbacks=fallbacks(config, mesh),
        clips=config.train.batch_size,
        steps=config.train.steps,
        unknown=_unknown(chip, devices),
        compile_seconds=time.monotonic() - begun,
    )


def abstract_batch(config: configs.Config, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Shapes, dtypes and shardings of a global batch, as the pipeline gives it."""
    size, data, text = config.train.batch_size, config.data, config.text
    shapes = {
        "video": ((data.frames, data.height, data.width, data.channels), jnp.uint8),
        "text": ((text.max_length, text.dim), jnp.float32),
        "text_mask": ((text.max_length,), jnp.bool_),
    }
    sharding = meshes.batch_sharding(mesh)
    return {
        key: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding)
        for key, (shape, dtype) in shapes.items()
    }


def model_flops(config: configs.Config) -> int:
    """Operations that a step asks for: forward, and twice as many backward."""
    return 3 * config.train.batch_size * forward_flops(config)


def sampling_flops(config: configs.Config, clips: int = 1) -> int:
    """Operations that sampling asks for, by the settings of `config.sample`.

    Guidance runs the network twice in a step, with the caption and without.

    Args:
        config: of the network.
        clips: of the config's own length; of a windowed cascade, `cascade.count_windows` for each
            whole clip.
    """
    settings = config.sample
    runs = 1 if settings.guidance_scale in (0, 1) else 2
    return clips * settings.steps * runs * forward_flops(config)


def forward_flops(config: configs.Config) -> int:
    """Operations of the network for one clip."""
    network, text = make_network(config), config.text
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in (input_shape(config, 1), (1,), (1, text.max_length, text.dim))
    ] + [jax.ShapeDtypeStruct((1, text.max_length), jnp.bool_)]
    params = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    return flops.count(network.apply, params, *arguments)


def fallbacks(config: configs.Config, mesh: jax.sharding.Mesh) -> list[str]:
    """The levels of which each chip computes all along an axis that the mesh was to split."""
    data, model, found = config.data, config.model, []
    frames = data.frames
    for level, channels in enumerate(configs.level_channels(model)):
        frames //= model.temporal_factors[level] if model.temporal else 1
        rows = data.height // model.patch_size // 2**level
        clip = {"rows": rows, "frames": frames}[config.mesh.clip_axis]
        for extent, what, axis in (
            (clip, config.mesh.clip_axis, "clip"),
            (channels, "features", "tensor"),
        ):
            if extent % mesh.shape[axis]:
                found.append(
                    f"level {level}: {extent} {what} do not split over {axis} {mesh.shape[axis]}"
                )
    return found


def _unknown(chip: chips.Chip, devices: Sequence[jax.Device]) -> list[str]:
    cases = (
        (chip.hertz is None, "how long a step takes, which benchmarks/train_step.py measures"),
        (chip.hbm is None, "how much memory a device has for it"),
        (chip.flops is None, "the peak of a device"),
        (meshes.count_slices(devices) > 1, "what the data-centre network takes"),
        (len(devices) > 1, "how much of the collectives is hidden"),
        (True, "whether the data keep up"),
    )
    return [what for applies, what in cases if applies]


def _compile(lowered, options):
    """(program, 0, 0), or (None, bytes lacking, bytes used) where it does not fit."""
    try:
        with chips.quiet():
            return lowered.compile(compiler_options=options), 0.0, 0.0
    except jax.errors.JaxRuntimeError as error:
        found = re.search(
            r"Used ([\d.]+)([KMGT]) of .*?Exceeded hbm capacity by ([\d.]+)([KMGT])",
            str(error),
            re.S,
        )
        if "RESOURCE_EXHAUSTED" not in str(error) or not found:
            raise UserError(
                f"the compiler refuses this program: {' '.join(str(error).split())[:300]}"
            ) from error
        unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
        return None, float(found[3]) * unit[found[4]], float(found[1]) * unit[found[2]]


def _bytes_on_a_chip(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
