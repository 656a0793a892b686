"""Finds the names that each service gives to a TPU slice: `v5p:4x4x4` is a `v5p-128`, 16 hosts."""

import argparse
import dataclasses
import math
import re

import jobs
from local import at_least

from stunet.commands.parsing import Parser
from stunet.errors import UserError, choose
from stunet.plan import tpus


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of a generation of TPUs in Google's documentation.

    Attributes:
        accelerator: value of the label `cloud.google.com/gke-tpu-accelerator` of a GKE node.
        runtime: version of a TPU VM's software.
    """

    accelerator: str
    runtime: str


# The keys are those of `stunet.plan.tpus.GENERATIONS`.
NAMES = {
    "v4": Names("tpu-v4-podslice", "tpu-ubuntu2204-base"),
    "v5e": Names("tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite"),
    "v5p": Names("tpu-v5p-slice", "v2-alpha-tpuv5"),
    "v6e": Names("tpu-v6e-slice", "v2-alpha-tpuv6e"),
}

# A host has four chips, except for these slices of two dimensions, which are one host each.
_ONE_HOST = {"1x1": 1, "2x4": 8}
_CHIPS_OF_A_HOST = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice: chips on one or more hosts, joined by their own links.

    Attributes:
        generation: properties of the generation.
        names: further names of the generation in Google's documentation.
        shape: chips along each dimension, such as `4x4x4`.
        chips: number of chips.
        hosts: number of hosts.
    """

    generation: tpus.Generation
    names: Names
    shape: str
    chips: int
    hosts: int

    @property
    def accelerator_type(self) -> str:
        """Name of the slice in Google Cloud, such as `v5p-128`."""
        return f"{self.generation.prefix}-{self.chips * self.generation.cores}"

    @property
    def chips_of_a_host(self) -> int:
        """Number of chips on each host."""
        return self.chips // self.hosts


def parse(topology: str) -> Slice:
    """Returns the slice called `topology`, such as `v5p:4x4x4` or `v5p-128`.

    Raises:
        UserError: there is no such generation, or no slice of that shape.
    """
    name, _, shape = tpus.to_shape(topology).partition(":")
    names = choose(NAMES, name, "generation of TPUs")
    generation = tpus.GENERATIONS[name]
    example = generation.example
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
    return Slice(generation, names, shape, chips, chips // of_a_host)


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
    parser.options.add_argument(
        "--no-mount",
        action="store_true",
        help="mount no buckets: stunet opens gs:// and s3:// itself, in an image that was built "
        "with EXTRA=tpu,gcs or EXTRA=tpu,s3",
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


def make_jobs(arguments: argparse.Namespace) -> list[jobs.Job]:
    """Returns the jobs of a command on a slice of TPUs (`jobs.make_jobs`)."""
    tpu = parse(arguments.topology)
    return jobs.make_jobs(
        arguments.name,
        arguments.command,
        arguments.restarts,
        devices=tpu.chips * tpu.generation.devices * arguments.slices,
        slices=arguments.slices,
        mounts=not arguments.no_mount,
    )
