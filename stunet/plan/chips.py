"""TPU chips, and meshes of them that are not here (`v5p:4x4x4`)."""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

import jax

from stunet.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as JAX counts them.

    Attributes:
        hbm: bytes that the compiler gives to a program.
        flops: peak of bfloat16 multiplications and additions a second.
        hertz: of the clock in which the compiler counts cycles.
        ici: bytes a second that one chip sends over all its links within a slice.
    """

    name: str
    hbm: float
    flops: float
    hertz: float
    ici: float


# Published peaks and links (cloud.google.com/tpu/docs). Clocks: peak / (multiplications and
# additions that a chip's matrix units do in a cycle). Memory: v5p's is the limit that its compiler
# named; the others are the published sizes less about as much.
CHIPS = {
    "v4": Chip("v4", 30.75 * 2**30, 275e12, 1.05e9, 300e9),
    "v5e": Chip("v5e", 15.75 * 2**30, 197e12, 1.5e9, 200e9),
    "v5p": Chip("v5p", 95.74 * 2**30, 459e12, 1.75e9, 600e9),
    "v6e": Chip("v6e", 31.25 * 2**30, 918e12, 1.75e9, 448e9),
}


def devices(topology: str, slices: int = 1) -> tuple[Chip, Sequence[jax.Device]]:
    """The devices of a topology, for compiling only.

    Args:
        topology: generation and shape, such as `v5p:4x4x4` or `v5e:16x16`.
        slices: that many of them, joined by the data-centre network.

    Raises:
        UserError: no such chip or shape, or the TPU compiler is not installed.
    """
    generation, _, shape = topology.partition(":")
    chip = choose(CHIPS, generation, "TPU generation")
    if not re.fullmatch(r"\d+(x\d+)+", shape):
        raise UserError(
            f"--topology is {topology!r}; it is a generation and a shape, such as v5p:4x4x4"
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
