"""The chips that `stunet plan` can plan for, and the topologies that they form.

There are three kinds of topology, with different compilers:

* `v5p:4x4x4`: TPUs that this machine need not have. The TPU compiler (libtpu) needs no TPU.
* `local`: the devices of this machine, for which JAX's own backend compiles.
* `h100:8`: GPUs that this machine need not have. If JAX's CUDA plugin is installed, it compiles for
  these GPUs (`stunet.plan.gpu_compiler`). Without it the plan is an estimate from traces
  (`stunet.plan.search`).
"""

import contextlib
import dataclasses
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence

import jax

from stunet.errors import UserError
from stunet.parallel.mesh import count_slices
from stunet.parallel.peaks import BFLOAT16
from stunet.plan import gpu_compiler
from stunet.plan.tpus import FORMS, GENERATIONS, check_shape, to_shape, topology_options


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as JAX counts devices. A field is None where its value is not known.

    Attributes:
        name: name of the chip, for people to read.
        hbm: bytes of device memory that a program may use.
        flops: peak operations a second in bfloat16; a multiplication and an addition count as two.
        hertz: frequency of the clock whose cycles the TPU compiler counts; None for other chips.
        ici: bytes a second that one chip can send over all its links to the other chips of its
            slice (TPUs) or of its host (GPUs).
        links: number of links of a TPU device to its neighbours; 1 for other chips.
        per_chip: number of devices in one physical chip. A TPU7x has two.
    """

    name: str
    hbm: float | None = None
    flops: float | None = None
    hertz: float | None = None
    ici: float | None = None
    per_chip: int = 1
    links: int = 1


TPUS = {
    name: Chip(
        name, g.hbm, BFLOAT16[g.kind], g.hertz, g.ici, g.devices, 2 * g.dimensions // g.devices
    )
    for name, g in GENERATIONS.items()
}

# NVIDIA's data sheets of the A100 80GB and the H100 (SXM), and "NVIDIA Ada GPU Architecture"
# (appendix A) for the RTX 4090. `hbm` is the whole memory, of which `find` takes JAX's share.
# NVLink's published bandwidth (600 and 900 GB/s) adds up both directions; a chip sends at half of
# it. The RTX 4090 has no NVLink: its link is PCIe 4.0 x16, 32 GB/s in each direction.
GPUS = {
    "rtx4090": Chip("RTX 4090", 24e9, BFLOAT16["NVIDIA GeForce RTX 4090"], ici=32e9),
    "a100-80gb": Chip("A100 80GB", 80e9, BFLOAT16["NVIDIA A100-SXM4-80GB"], ici=300e9),
    "h100": Chip("H100 80GB", 80e9, BFLOAT16["NVIDIA H100 80GB HBM3"], ici=450e9),
}
GPUS_IN_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class Topology:
    """The chips that a run is planned for.

    Attributes:
        name: name on the command line, such as `v5p:4x4x4`, `h100:8` or `local`.
        platform: JAX's name of the platform. For local devices it is tpu, gpu or cpu. Otherwise it
            is tpu for TPUs and cuda for GPUs.
        chip: properties of one device, which all devices share.
        count: number of devices, over all slices.
        slices: number of TPU slices; for GPUs, number of hosts. The data-centre network joins them.
        devices: devices that programs are compiled for; empty for an estimate.
    """

    name: str
    platform: str
    chip: Chip
    count: int
    slices: int = 1
    devices: Sequence[jax.Device] = ()

    @property
    def chips(self) -> int:
        """Returns the number of chips, which may have several devices each."""
        return self.count // self.chip.per_chip

    @property
    def is_local(self) -> bool:
        """Returns whether the devices are this machine's own."""
        return self.name == "local"


def find(name: str, slices: int = 1, estimate: bool = False) -> Topology:
    """Returns the topology with this name.

    Args:
        name: for TPUs, Google Cloud's name of a slice (`v5p-128`) or its generation and shape
            (`v5p:4x4x4`); for GPUs, their kind and their number in each host (`h100:8`); for the
            devices of this machine, `local`.
        slices: number of TPU slices; for GPUs, number of hosts.
        estimate: leave out the devices, so that no compiler is needed.

    Raises:
        UserError: there is no such chip or shape, the TPU compiler is not installed, JAX finds no
            local device, or `slices` is above 1 for local devices.
    """
    name = to_shape(name)
    if name == "local":
        return _local(slices, estimate)
    kind, _, shape = name.partition(":")
    if kind in GPUS:
        return _gpus(name, kind, shape, slices, estimate)
    if kind in TPUS and re.fullmatch(r"\d+(x\d+)+", shape):
        return _tpus(name, kind, shape, slices, estimate)
    raise UserError(
        f"--topology is {name!r}; write {FORMS}, the GPUs in each host, such as h100:8 "
        f"({', '.join(GPUS)}), or local"
    )


def _local(slices: int, estimate: bool) -> Topology:
    if estimate:
        raise UserError("--topology local is always compiled for; leave out --estimate")
    if slices > 1:
        raise UserError(f"--slices is {slices}, but --topology local has no slices; leave it out")
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX raises either.
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX finds no device here; JAX_PLATFORMS is {asked!r}") from error
    platform, chip = devices[0].platform, describe(devices[0])
    return Topology("local", platform, chip, len(devices), count_slices(devices), devices)


def _gpus(name: str, kind: str, shape: str, hosts: int, estimate: bool) -> Topology:
    if not re.fullmatch(r"\d+", shape) or not 1 <= int(shape) <= GPUS_IN_A_HOST:
        raise UserError(
            f"--topology is {name!r}; write how many GPUs each host has, 1 to {GPUS_IN_A_HOST}, "
            f"such as {kind}:8; --slices 2 plans for two such hosts"
        )
    chip = dataclasses.replace(GPUS[kind], hbm=GPUS[kind].hbm * memory_fraction())
    devices: Sequence[jax.Device] = ()
    if gpu_compiler.is_installed() and not estimate:
        with silence_stderr():
            devices = gpu_compiler.devices(kind, int(shape), hosts)
    return Topology(name, "cuda", chip, int(shape) * hosts, hosts, devices)


def _tpus(name: str, kind: str, shape: str, slices: int, estimate: bool) -> Topology:
    check_shape(name)
    if estimate:
        count = math.prod(map(int, shape.split("x"))) * slices * TPUS[kind].per_chip
        return Topology(name, "tpu", TPUS[kind], count, slices)
    from jax.experimental import topologies

    with silence_stderr():
        try:
            found = topologies.get_topology_desc(
                topology_name=name, platform="tpu", **topology_options(name, slices)
            )
        except Exception as error:  # The plugin has no type of its own for its errors.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if "not installed" in reason:
                reason = "the TPU compiler is not installed; pip install 'stunet[tpu]', or plan "
                reason += "with --estimate"
            raise UserError(f"--topology {name}: {reason}") from error
    return Topology(name, "tpu", TPUS[kind], len(found.devices), slices, found.devices)


def memory_fraction() -> float:
    """Returns the share of a GPU's memory that JAX allocates.

    The share is the value of the environment variable XLA_PYTHON_CLIENT_MEM_FRACTION, or 0.75 if
    the variable is not set (docs.jax.dev, "GPU memory allocation").
    """
    text = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise UserError(
            f"XLA_PYTHON_CLIENT_MEM_FRACTION is {text!r}; write a number above 0 and at most 1"
        )
    return fraction


def describe(device: jax.Device) -> Chip:
    """Returns the known properties of a device of this machine.

    `hbm` is the memory that JAX may allocate. For a GPU, this is three quarters of the GPU's
    memory, or the share that XLA_PYTHON_CLIENT_MEM_FRACTION sets. For a CPU, `hbm` is None.
    """
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return Chip(device.device_kind, memory, BFLOAT16.get(device.device_kind))


@contextlib.contextmanager
def silence_stderr() -> Iterator[None]:
    """Context manager that hides what the TPU library prints on stderr."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)
