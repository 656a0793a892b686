"""The whole train step as a compiler lays it out: what a device holds, and what devices exchange.

For TPUs that are not here, the compiler is stopped as soon as it has said where every buffer lies,
which is before it writes machine code, by far the longest part of its work: a network of the
paper's size takes minutes instead of an hour. It runs in a process of its own, which can be
stopped, and what it dumps says how far it is.
"""

import contextlib
import dataclasses
import multiprocessing
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips, hlo
from stunet.train.parts import Parts, make_parts
from stunet.train.state import abstract_state
from stunet.train.step import jit_train_step

# What the compiler dumps last before it writes machine code, and what it dumps before that. The
# last takes gigabytes if it is waited for.
_LAST = "*jit_step*after_optimizations-buffer-assignment-values.txt"
_BUFFERS = "*jit_step*after_optimizations-buffer-assignment.txt"
_TEXT = "*jit_step*after_optimizations.txt"
# Temporary buffers in a chip's main memory; those in faster ones have a color.
_TEMPORARY = re.compile(r"^allocation \d+: size (\d+), preallocated-temp", re.MULTILINE)

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Whole:
    """A compiled train step, on one device.

    Attributes:
        program: what it exchanges.
        temporaries: bytes beside its arguments; None where the compiler only said that all is too
            much.
        code: bytes of the program itself; None where it was not written.
        used: bytes that it would hold where that is too much, by the compiler; else None.
        over: bytes of those that are lacking; else None.
    """

    program: hlo.Program
    temporaries: float | None = None
    code: float | None = None
    used: float | None = None
    over: float | None = None


def compile_local(parts: Parts, devices: Sequence[jax.Device]) -> Whole:
    """The step, compiled by the backend of devices that are here."""
    compiled = _lower(parts, devices).compile()
    memory = compiled.memory_analysis()
    return Whole(
        hlo.read(compiled.as_text()),
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
    )


def lay_out(config: configs.Experiment, topology: str, slices: int = 1) -> Whole:
    """The step, as it lies in the memory of TPUs that are not here (`chips.devices`).

    Raises:
        UserError: the compiler refuses the program, other than for its size.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="stunet_plan_", ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        process = context.Process(
            target=_work, args=(config, topology, slices, name, sender), daemon=True
        )
        process.start()
        sender.close()
        try:
            while not receiver.poll(0.1) and not any(directory.glob(_LAST)):
                pass
            if not receiver.poll():
                return _read(directory)
            return _outcome(receiver.recv())
        except EOFError as error:
            process.join()
            raise UserError(f"the compiler ended with status {process.exitcode}") from error
        finally:
            process.kill()
            process.join()


def abstract_batch(parts: Parts, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Shapes, dtypes and shardings of a global batch, as the pipeline gives it."""
    size, clip, text = parts.batch_size, parts.denoiser.clip, parts.denoiser.text
    shapes = {
        "video": (clip.shape, jnp.uint8),
        "text": ((text.max_length, text.dim), jnp.float32),
        "text_mask": ((text.max_length,), jnp.bool_),
    }
    sharding = meshes.batch_sharding(mesh)
    return {
        key: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding)
        for key, (shape, dtype) in shapes.items()
    }


def _lower(parts: Parts, devices: Sequence[jax.Device]):
    mesh = meshes.make_mesh(parts.layout, devices)
    with meshes.use(mesh, parts.layout.context_axis):
        state = abstract_state(parts.denoiser, parts.optimizer, mesh)
        step = jit_train_step(
            parts.objective,
            parts.optimizer,
            state,
            seed=parts.seed,
            accumulate=parts.accumulate,
        )
        return step.lower(state, abstract_batch(parts, mesh))


def _work(config: configs.Experiment, topology: str, slices: int, directory: str, sender) -> None:
    """In a process of its own: sends an outcome, unless it is stopped before it has one."""
    # Whoever is asked to stop says it once, not the compiler too.
    with contextlib.suppress(KeyboardInterrupt), chips.quiet():
        lowered = _lower(make_parts(config), chips.devices(topology, slices)[1])
        try:
            compiled = lowered.compile({"xla_dump_to": directory, "xla_dump_hlo_as_text": True})
        except jax.errors.JaxRuntimeError as error:
            sender.send({"error": str(error)})
        else:
            memory = compiled.memory_analysis()
            sender.send({"text": compiled.as_text(), "temporaries": memory.temp_size_in_bytes})


def _read(directory: pathlib.Path) -> Whole:
    (text,), (buffers,) = directory.glob(_TEXT), directory.glob(_BUFFERS)
    temporaries = sum(int(size) for size in _TEMPORARY.findall(buffers.read_text()))
    return Whole(hlo.read(text.read_text()), temporaries)


def _outcome(sent: Mapping[str, Any]) -> Whole:
    if "error" not in sent:
        return Whole(hlo.read(sent["text"]), sent["temporaries"])
    found = re.search(
        r"Used ([\d.]+)([KMGT]) of .*?Exceeded hbm capacity by ([\d.]+)([KMGT])",
        sent["error"],
        re.DOTALL,
    )
    if "RESOURCE_EXHAUSTED" not in sent["error"] or not found:
        reason = " ".join(sent["error"].split())[:300]
        raise UserError(f"the compiler refuses this program: {reason}")
    used, over = (float(found[i]) * _UNITS[found[i + 1]] for i in (1, 3))
    return Whole(hlo.Program(0, {}, {}), used=used, over=over)
