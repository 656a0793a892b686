"""Compiles the train step, to find the memory that a device needs, and the collectives.

For chips that this machine does not have, the compiler is stopped as soon as it has placed every
buffer. Writing the machine code would come next, and takes by far the longest. So compiling a
network of the paper's size takes minutes instead of an hour. The compiler runs in a separate
process, which can be stopped. The files that the compiler dumps show how far it is.
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

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips, hlo, schedule
from stunet.signals import end_with_parent
from stunet.train import program
from stunet.train.parts import Parts, make_parts

# The compiler dumps _LAST right before it writes machine code, and the other two before that.
# Waiting for _LAST to be complete would take gigabytes.
_LAST = "*jit_step*after_optimizations-buffer-assignment-values.txt"
_BUFFERS = "*jit_step*after_optimizations-buffer-assignment.txt"
_TEXT = "*jit_step*after_optimizations.txt"
# Temporary buffers in a chip's main memory. Those in faster memories are written with a color.
_TEMPORARY = re.compile(r"^allocation \d+: size (\d+), preallocated-temp", re.MULTILINE)

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled train step, on one device.

    Attributes:
        program: the step's collectives; empty if the compiler refused the program.
        events: the order of computation and collectives; empty if the compiler refused the
            program.
        temporaries: bytes of memory in addition to the step's arguments; None if the compiler
            refused the program because it is too large.
        code: bytes of the machine code; None if the compiler was stopped before writing it.
        used: bytes that the program would need, if the compiler refused it because it is too large;
            None if the compiler accepted the program.
        excess: bytes by which `used` exceeds the device's memory; None if `used` is None.
    """

    program: hlo.Program
    temporaries: float | None = None
    code: float | None = None
    used: float | None = None
    excess: float | None = None
    events: tuple[schedule.Event, ...] = ()


def compile_step(config: configs.Experiment, topology: chips.Topology) -> CompiledStep:
    """Compiles the train step for a topology, which must have devices to compile for.

    Raises:
        UserError: the compiler refuses the program for a reason other than its size.
    """
    if topology.is_local:
        return _compile_local(make_parts(config), topology.devices)
    return _compile_elsewhere(config, topology)


def _compile_local(parts: Parts, devices: Sequence[jax.Device]) -> CompiledStep:
    compiled = program.lower(parts, meshes.make_mesh(parts.layout, devices)).compile()
    memory = compiled.memory_analysis()
    return CompiledStep(
        hlo.read(compiled.as_text()),
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
    )


def _compile_elsewhere(config: configs.Experiment, topology: chips.Topology) -> CompiledStep:
    """Compiles in a separate process, and stops it as soon as the buffers are placed."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="stunet_plan_", ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        arguments = (config, topology.name, topology.slices, name, sender)
        process = context.Process(target=_compiler_process, args=arguments, daemon=True)
        process.start()
        sender.close()
        try:
            while not receiver.poll(0.1) and not any(directory.glob(_LAST)):
                pass
            if not receiver.poll():
                return _read_dump(directory)
            return _read_message(receiver.recv())
        except EOFError as error:
            process.join()
            raise UserError(
                f"the compiler's process ended with status {process.exitcode}"
            ) from error
        finally:
            process.kill()
            process.join()


def _compiler_process(
    config: configs.Experiment, topology: str, slices: int, directory: str, sender
) -> None:
    """Compiles the step and sends the outcome, unless the process is stopped before that."""
    end_with_parent()
    # The parent process reports an interruption; this one stays silent.
    with contextlib.suppress(KeyboardInterrupt), chips.silence_stderr():
        found = chips.find(topology, slices)
        options = {"xla_dump_to": directory, "xla_dump_hlo_as_text": True}
        if found.platform == "cuda":
            # Autotuning would run kernels.
            options["xla_gpu_autotune_level"] = "0"
        parts = make_parts(config)
        lowered = program.lower(parts, meshes.make_mesh(parts.layout, found.devices))
        try:
            compiled = lowered.compile(options)
        except jax.errors.JaxRuntimeError as error:
            sender.send({"error": str(error)})
        else:
            memory = compiled.memory_analysis()
            sender.send({"text": compiled.as_text(), "temporaries": memory.temp_size_in_bytes})


def _read_dump(directory: pathlib.Path) -> CompiledStep:
    """Reads the files that the compiler dumped before it was stopped."""
    (text,), (buffers,) = directory.glob(_TEXT), directory.glob(_BUFFERS)
    temporaries = sum(int(size) for size in _TEMPORARY.findall(buffers.read_text()))
    return _from_text(text.read_text(), temporaries)


def _read_message(message: Mapping[str, Any]) -> CompiledStep:
    """Converts the message from the compiler's process to a `CompiledStep`."""
    if "error" in message:
        return read_refusal(message["error"])
    return _from_text(message["text"], message["temporaries"])


def _from_text(text: str, temporaries: float) -> CompiledStep:
    return CompiledStep(hlo.read(text), temporaries, events=schedule.read(text))


def read_refusal(error: str) -> CompiledStep:
    """Reads the message of a compiler that refuses a program because of its size.

    Raises:
        UserError: the compiler refuses the program for another reason.
    """
    found = re.search(
        r"Used ([\d.]+)([KMGT]) of .*?Exceeded hbm capacity by ([\d.]+)([KMGT])", error, re.DOTALL
    )
    if "RESOURCE_EXHAUSTED" not in error or not found:
        reason = " ".join(error.split())[:300]
        raise UserError(f"the compiler refuses this program: {reason}")
    used, excess = (float(found[i]) * _UNITS[found[i + 1]] for i in (1, 3))
    return CompiledStep(hlo.Program(0, {}, {}), used=used, excess=excess)
