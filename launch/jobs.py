"""What is submitted: a `stunet` command, or one for each member of a sweep, checked here first."""

import argparse
import dataclasses
import re
from collections.abc import Sequence

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh
from stunet.sweep import members
from stunet.train.parts import make_parts

# A pre-empted run ends with it, and is begun again; 0 would say that it is done. sysexits.h calls
# it a failure that is temporary.
STOP_STATUS = 75

# Buckets are mounted here in every container, each under its name.
MOUNTS = "/gcs"

# Whole directories are renamed when a checkpoint is complete; and what one host has written, others
# see at once, where a cache would show them what was there before.
GCSFUSE_OPTIONS = (
    *("--implicit-dirs", "--rename-dir-limit", "200000"),
    *("--metadata-cache-ttl-secs", "0", "--metadata-cache-negative-ttl-secs", "0"),
)
# The same, as the driver of Kubernetes takes them.
DRIVER_OPTIONS = (
    *("implicit-dirs", "rename-dir-limit=200000"),
    *("metadata-cache:ttl-secs:0", "metadata-cache:negative-ttl-secs:0"),
)

# What a run that is asked to end may take to save.
GRACE_SECONDS = 120

# Pods and nodes are called after the job, by names of 63 characters at most with their numbers.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]")
_ADDRESS = re.compile(r"gs://([^/]*)(/.*)?")


@dataclasses.dataclass(frozen=True)
class Job:
    """One command, as it runs on every host.

    Attributes:
        name: of the job, as Kubernetes allows it.
        command: `stunet` and its arguments; buckets are where they are mounted.
        logs: directory of what the hosts print, beside what the run itself writes.
        buckets: that are mounted.
        restarts: how often it is begun again, whatever ended it.
    """

    name: str
    command: tuple[str, ...]
    logs: str
    buckets: tuple[str, ...]
    restarts: int


def make_jobs(
    name: str,
    command: Sequence[str],
    restarts: int,
    devices: int,
    slices: int = 1,
    on_buckets: bool = True,
) -> list[Job]:
    """The jobs of a command; a sweep's members are called NAME-0, NAME-1, ...

    Args:
        name: of the job.
        command: `stunet` and its arguments, which may name `gs://BUCKET/PATH`.
        restarts: of each job.
        devices: of each job, over which its mesh has to fit.
        slices: that the devices are, joined by the data-centre network.
        on_buckets: whether hosts keep nothing but what lies in buckets.

    Raises:
        UserError: the name, or a bucket's, is none; a config or a sweep that is refused, or that
            does not fit the devices; a working directory that the hosts would not share.
    """
    if list(command[:1]) != ["stunet"] or len(command) < 2:
        raise UserError("give the command after --, as: -- stunet train --config C --workdir D")
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config")
    flags.add_argument("--workdir")
    flags.add_argument("--member")
    given, rest = flags.parse_known_args(command[2:])
    _check_workdir(given.workdir, on_buckets)
    overrides = [flag for flag in rest if flag.startswith("--config.")]

    def job(name: str, command: Sequence[str], workdir: str) -> Job:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--name makes {name!r}; it must be lower-case letters, digits and dashes, at most "
                "40, beginning with a letter"
            )
        buckets = dict.fromkeys(b for argument in command if (b := _bucket_of(argument)))
        mounted = tuple(map(_mounted, command))
        if command[1] == "train":
            mounted += ("--stop-status", str(STOP_STATUS))
        return Job(name, mounted, _mounted(workdir) + "/launch", tuple(buckets), restarts)

    if command[1] == "sweep":
        if len(overrides) != len(rest) or given.config is None:
            raise UserError("of a sweep, give --config, --workdir and --config.KEY=VALUE alone")
        jobs = []
        for entry in members.load(given.config, overrides):
            if isinstance(entry, members.Member):
                _check_mesh(entry.config, devices, slices)
                workdir = f"{given.workdir.rstrip('/')}/{entry.name}"
                member = ["--config", given.config, "--member", entry.name, "--workdir", workdir]
                train = ["stunet", "train", *member, *overrides]
                jobs.append(job(f"{name}-{len(jobs)}", train, workdir))
        return jobs
    if command[1] == "train" and given.config is not None:
        # A mistake is told here, and not by a pod for which the user has waited.
        if given.member is None:
            config = configs.load(given.config, overrides)
        else:
            config = members.find(given.config, given.member, overrides).config
        _check_mesh(config, devices, slices)
    return [job(name, command, given.workdir)]


def _check_workdir(workdir: str | None, on_buckets: bool) -> None:
    if workdir is None:
        raise UserError("the command has no --workdir")
    if on_buckets and not _ADDRESS.fullmatch(workdir):
        raise UserError(
            f"--workdir is {workdir!r}, which is gone with the hosts; give one in a bucket, as "
            "gs://BUCKET/runs/mine"
        )
    if not on_buckets and _ADDRESS.fullmatch(workdir):
        raise UserError(
            f"--workdir is {workdir!r}, and this cluster mounts no buckets; give a directory on "
            "the file system that its nodes share"
        )


def _check_mesh(config: configs.Experiment, devices: int, slices: int) -> None:
    parts = make_parts(config)
    whole = mesh.abstract_mesh(parts.layout, devices, slices)
    mesh.check_batch(parts.batch_size, parts.accumulate, whole)


def _bucket_of(argument: str) -> str | None:
    """The bucket that an argument names, as `gs://B/...` or `--flag=gs://B/...`.

    Raises:
        UserError: no bucket can be called so.
    """
    found = _ADDRESS.fullmatch(_value(argument))
    if found is None:
        return None
    if not _BUCKET.fullmatch(found[1]):
        raise UserError(f"{argument!r} names no bucket; one is named as gs://BUCKET/PATH")
    return found[1]


def _mounted(argument: str) -> str:
    value = _value(argument)
    if not _ADDRESS.fullmatch(value):
        return argument
    return argument.removesuffix(value) + f"{MOUNTS}/{value.removeprefix('gs://')}"


def _value(argument: str) -> str:
    return argument.partition("=")[2] if argument.startswith("--") else argument
