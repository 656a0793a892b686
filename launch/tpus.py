"""Finds the names that each service gives to a TPU slice: `v5p:4x4x4` is a `v5p-128`, 16 hosts."""

import argparse
import dataclasses
import math
import re

from local import at_least

from stunet.commands.parsing import Parser
from stunet.errors import UserError, choose
from stunet.plan.topology_names import to_shape


@dataclasses.dataclass(frozen=True)
class Generation:
    """Names of a generation of TPUs in Google's documentation.

    Attributes:
        prefix: start of an accelerator type, such as `v5p` in `v5p-128`.
        counted: units that an accelerator type counts for each chip: 2 TensorCores, or 1 chip.
        accelerator: value of the label `cloud.google.com/gke-tpu-accelerator` of a GKE node.
        runtime: version of a TPU VM's software.
        dimensions: number of dimensions of a slice's shape.
    """

    prefix: str
    counted: int
    accelerator: str
    runtime: str
    dimensions: int


# The keys are the names that `stunet plan` uses (`stunet/plan/chips.py`).
GENERATIONS = {
    "v4": Generation("v4", 2, "tpu-v4-podslice", "tpu-ubuntu2204-base", 3),
    "v5e": Generation("v5litepod", 1, "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite", 2),
    "v5p": Generation("v5p", 2, "tpu-v5p-slice", "v2-alpha-tpuv5", 3),
    "v6e": Generation("v6e", 1, "tpu-v6e-slice", "v2-alpha-tpuv6e", 2),
}

# A host has four chips, except for these slices of two dimensions, which are one host each.
_ONE_HOST = {"1x1": 1, "2x4": 8}
_CHIPS_OF_A_HOST = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice: chips on one or more hosts, joined by their own links.

    Attributes:
        generation: names of the generation.
        shape: chips along each dimension, such as `4x4x4`.
        chips: number of chips.
        hosts: number of hosts.
    """

    generation: Generation
    shape: str
    chips: int
    hosts: int

    @property
    def accelerator_type(self) -> str:
        """Name of the slice in Google Cloud, such as `v5p-128`."""
        return f"{self.generation.prefix}-{self.chips * self.generation.counted}"

    @property
    def chips_of_a_host(self) -> int:
        """Number of chips on each host."""
        return self.chips // self.hosts


def parse(topology: str) -> Slice:
    """Returns the slice called `topology`, such as `v5p:4x4x4` or `v5p-128`.

    Raises:
        UserError: there is no such generation, or no slice of that shape.
    """
    name, _, shape = to_shape(topology).partition(":")
    generation = choose(GENERATIONS, name, "generation of TPUs")
    example = "x".join(["4"] * generation.dimensions)
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or (
        shape.count("x") + 1 != generation.dimensions
    ):
        raise UserError(
            f"--topology is {topology!r}; a {name} has a shape such as {name}:{example}"
        )
    chips = math.prod(map(int, shape.split("x")))
    of_a_host = _ONE_HOST.get(shape, _CHIPS_OF_A_HOST)
    if chips % of_a_host:
        raise UserError(
            f"--topology is {topology!r}, {chips} chips, which do not fill hosts of "
            f"{of_a_host} chips; choose a shape such as {name}:{example}"
        )
    return Slice(generation, shape, chips, chips // of_a_host)


def add_arguments(parser: Parser) -> None:
    """Adds the arguments that describe the TPUs, which every service for TPUs needs."""
    parser.required.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="slice of TPUs, as for stunet plan: v5p-128 or v5p:4x4x4",
    )
    parser.options.add_argument(
        "--slices",
        type=at_least(1),
        default=1,
        metavar="N",
        help="number of slices, the mesh.slice of the config (default %(default)s)",
    )
    parser.options.add_argument(
        "--spot", action="store_true", help="use cheaper chips that may be preempted"
    )


def add_image(parser: Parser) -> None:
    """Adds the container image."""
    parser.required.add_argument(
        "--image",
        required=True,
        metavar="IMAGE",
        help="container image, built from launch/Dockerfile and pushed to a registry",
    )


def add_place(parser: Parser) -> None:
    """Adds the project and the zone of Google Cloud."""
    parser.required.add_argument(
        "--project", required=True, metavar="ID", help="project of Google Cloud"
    )
    parser.required.add_argument(
        "--zone", required=True, metavar="ZONE", help="zone that has the TPUs, such as us-east5-a"
    )


def devices(arguments: argparse.Namespace) -> tuple[int, int]:
    """Returns the number of devices, and the number of slices."""
    return parse(arguments.topology).chips * arguments.slices, arguments.slices
