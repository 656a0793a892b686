"""Chips to plan for: TPUs that are not here (`v5p:4x4x4`), and this machine's (`local`)."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import jax

from stunet.errors import UserError, choose
from stunet.parallel.peaks import BFLOAT16


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as JAX counts them; None is what is not known of it.

    Attributes:
        hbm: bytes that a program may take.
        flops: peak of bfloat16 multiplications and additions a second.
        hertz: of the clock in which the compiler counts cycles.
        ici: bytes a second that one chip sends over all its links within a slice.
    """

    name: str
    hbm: float | None = None
    flops: float | None = None
    hertz: float | None = None
    ici: float | None = None


# Published links (cloud.google.com/tpu/docs). Clocks: peak / (multiplications and additions that a
# chip's matrix units do in a cycle). Memory: v5p's is the limit that its compiler named; the others
# are the published sizes less about as much.
CHIPS = {
    "v4": Chip("v4", 30.75 * 2**30, BFLOAT16["TPU v4"], 1.05e9, 300e9),
    "v5e": Chip("v5e", 15.75 * 2**30, BFLOAT16["TPU v5 lite"], 1.5e9, 200e9),
    "v5p": Chip("v5p", 95.74 * 2**30, BFLOAT16["TPU v5"], 1.75e9, 600e9),
    "v6e": Chip("v6e", 31.25 * 2**30, BFLOAT16["TPU v6 lite"], 1.75e9, 448e9),
}


def devices(topology: str, slices: int = 1) -> tuple[Chip, Sequence[jax.Device]]:
    """The devices of a topology: TPUs for compiling only, or all of this machine's.

    Args:
        topology: generation and shape, such as `v5p:4x4x4` or `v5e:16x16`; or `local`.
        slices: that many of them, joined by the data-centre network.

    Raises:
        UserError: no such chip or shape, or the TPU compiler is not installed; several slices of
            local devices, or none here.
    """
    if topology == "local":
        if slices > 1:
            raise UserError(f"--slices is {slices}; local devices are planned for as they are")
        try:
            found = jax.devices()
        except (RuntimeError, AssertionError) as error:  # JAX raises either.
            asked = os.environ.get("JAX_PLATFORMS", "")
            raise UserError(f"JAX finds no device here; JAX_PLATFORMS is {asked!r}") from error
        return local(found[0]), found
    generation, _, shape = topology.partition(":")
    chip = choose(CHIPS, generation, "TPU generation")
    if not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(
            f"--topology is {topology!r}; it is a generation and a shape, such as v5p:4x4x4, "
            "or local"
        )
    from jax.experimental import topologies

    with quiet():
        try:
            found = topologies.get_topology_desc(
                topology_name=topology,
                platform="tpu",
                **({"num_slices": slices} if slices > 1 else {}),
            )
        except Exception as error:  # Whatever the plugin raises; it has no type of its own.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            if "not installed" in reason:
                reason = "the TPU compiler is not installed; pip install 'stunet[tpu]'"
            raise UserError(f"--topology {topology}: {reason}") from error
    return chip, found.devices


def local(device: jax.Device) -> Chip:
    """What is known of a device that is here.

    Its memory is what JAX may allocate: of a GPU three quarters, unless
    XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise. A CPU's is not known.
    """
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return Chip(device.device_kind, memory, BFLOAT16.get(device.device_kind))


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Within: nothing that the TPU library prints reaches the terminal; yields what still does."""
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield terminal
    finally:
        sys.stderr.flush()
        os.dup2(terminal.fileno(), 2)
        os.close(nowhere)
        terminal.close()
