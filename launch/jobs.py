"""Makes the jobs to submit: a `stunet` command, or one for each member of a sweep, checked."""

import argparse
import dataclasses
import re
from collections.abc import Sequence

from stunet import configs, paths
from stunet.commands import prepare
from stunet.errors import UserError
from stunet.parallel import mesh
from stunet.sweep import members
from stunet.train.parts import make_parts

# Exit status of a preempted run, which is then restarted; 0 would mean that the run is done. In
# sysexits.h, 75 is a temporary failure. Runs that hang end with it too.
STOP_STATUS = 75

# Every container mounts the buckets here, each under its name.
MOUNTS = "/gcs"

# Checkpoints are complete once their whole directory is renamed. Metadata is not cached, so that
# each host sees at once what another host has written.
GCSFUSE_OPTIONS = (
    *("--implicit-dirs", "--rename-dir-limit", "200000"),
    *("--metadata-cache-ttl-secs", "0", "--metadata-cache-negative-ttl-secs", "0"),
)
# The same options, as the CSI driver of Kubernetes spells them.
DRIVER_OPTIONS = (
    *("implicit-dirs", "rename-dir-limit=200000"),
    *("metadata-cache:ttl-secs:0", "metadata-cache:negative-ttl-secs:0"),
)

# Time that a run gets to save a checkpoint after it is asked to stop.
GRACE_SECONDS = 120

# Pods and nodes are named after the job, with a number; their names have at most 63 characters.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]")
_ADDRESS = re.compile(r"gs://([^/]*)(/.*)?", re.DOTALL)
_OF_STORE = re.compile(r"(?:gs|s3)://[^/]+/.+", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Job:
    """One command, as it runs on every host.

    Attributes:
        name: name of the job, as Kubernetes allows it.
        command: `stunet` and its arguments, with buckets replaced by where they are mounted, if
            they are.
        logs: directory for the output of the hosts. It is in the working directory of the run, or
            beside the script if nodes do not share that.
        buckets: names of the buckets to mount.
        restarts: number of times the job restarts, whatever ended it.
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
    mounts: bool = True,
) -> list[Job]:
    """Returns the jobs of a command: one, or NAME-0, NAME-1, ... for the members of a sweep.

    Args:
        name: name of the job.
        command: `stunet` and its arguments, which may name `gs://BUCKET/PATH`.
        restarts: number of times each job restarts.
        devices: number of devices of each job, which its mesh has to fit.
        slices: number of slices that the devices form, joined by the data-centre network.
        on_buckets: True if hosts keep only what lies in buckets.
        mounts: True if hosts mount the buckets that the command names. Otherwise `stunet` opens
            their addresses itself.

    Raises:
        UserError: the name of the job or of a bucket is not allowed; the config or the sweep is
            refused, or its mesh does not fit the devices; the hosts would not share the working
            directory.
    """
    if list(command[:1]) != ["stunet"] or len(command) < 2:
        raise UserError("give the command after --, such as -- stunet train --config C --workdir D")
    if command[1] == "prepare":
        raise UserError("stunet prepare needs no TPU or GPU; submit it with launch/submit.py ray")
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config")
    flags.add_argument("--workdir")
    flags.add_argument("--member")
    given, rest = flags.parse_known_args(command[2:])
    _check_workdir(given.workdir, on_buckets, mounts)
    mount = _mounted if mounts else lambda argument: argument
    flags_given = [flag for flag in rest if flag.startswith("--config.")]
    # The config is checked as the hosts will see it.
    overrides = list(map(mount, flags_given))

    def job(name: str, command: Sequence[str], workdir: str) -> Job:
        mounted = tuple(map(mount, command))
        if command[1] == "train":
            mounted += ("--stop-status", str(STOP_STATUS))
        # Services write logs to files of the nodes, and stunet to buckets too.
        is_away = not on_buckets and paths.has_scheme(workdir)
        logs = f"{name}.launch" if is_away else mount(workdir) + "/launch"
        return Job(_checked(name), mounted, logs, _buckets(command) if mounts else (), restarts)

    if command[1] == "sweep":
        if len(overrides) != len(rest) or given.config is None:
            raise UserError("a sweep takes only --config, --workdir and --config.KEY=VALUE")
        jobs = []
        for entry in members.load(given.config, overrides).entries:
            if isinstance(entry, members.Member):
                if entry.after:
                    raise UserError(
                        f"member {entry.name!r} needs {', '.join(entry.after)}, and the jobs of a "
                        "sweep start at once; launch `stunet train --member NAME` for each member, "
                        "in turn"
                    )
                _check_mesh(entry.config, devices, slices)
                workdir = f"{given.workdir.rstrip('/')}/{entry.name}"
                member = ["--config", given.config, "--member", entry.name, "--workdir", workdir]
                train = ["stunet", "train", *member, *flags_given]
                jobs.append(job(f"{name}-{len(jobs)}", train, workdir))
        return jobs
    if command[1] == "train" and given.config is not None:
        # Report a mistake now, rather than from a pod that the user has waited for.
        if given.member is None:
            config = configs.load(given.config, overrides)
        else:
            config = members.find(given.config, given.member, overrides).config
        configs.check_data(config)
        _check_mesh(config, devices, slices)
    return [job(name, command, given.workdir)]


def make_preparation(name: str, command: Sequence[str], restarts: int) -> Job:
    """Returns the job of `stunet prepare`, which a Ray cluster of its own does.

    Args:
        name: name of the job.
        command: `stunet prepare` and its arguments, which may name `gs://BUCKET/PATH`.
        restarts: number of times the job restarts.

    Raises:
        UserError: the name of the job or of a bucket is not allowed, the command is another one, or
            the pods would not share the videos and the shots.
        SystemExit: an argument of the command is missing or unknown, or has a wrong value.
    """
    if list(command[:2]) != ["stunet", "prepare"]:
        raise UserError(
            "a Ray cluster prepares videos; give the command after --, such as -- stunet prepare "
            "gs://BUCKET/videos gs://BUCKET/shots"
        )
    buckets = _buckets(command)
    arguments = ("--engine", "ray", *map(_mounted, command[2:]))
    given = prepare.COMMAND.parser("stunet prepare").parse(arguments)
    if given.engine != "ray" or given.address or given.workers:
        raise UserError(
            "the job's own Ray cluster does the work: leave out --engine, --address and --workers "
            "behind the two dashes"
        )
    for place in (given.input, given.output):
        if not any(place.is_relative_to(f"{MOUNTS}/{bucket}") for bucket in buckets):
            raise UserError(
                f"{str(place)!r} is not in a bucket, so the pods do not share it; give gs://BUCKET/PATH"
            )
    # Beside the shots: their directory holds nothing else.
    logs = f"{given.output}.launch"
    return Job(_checked(name), ("stunet", "prepare", *arguments), logs, buckets, restarts)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"--name makes {name!r}; it must be lower-case letters, digits and dashes, at most 40, "
            "beginning with a letter"
        )
    return name


def _buckets(command: Sequence[str]) -> tuple[str, ...]:
    """Returns the buckets that a command names, each once.

    Raises:
        UserError: no bucket can have a name that the command gives.
    """
    return tuple(dict.fromkeys(b for argument in command if (b := _bucket_of(argument))))


def _check_workdir(workdir: str | None, on_buckets: bool, mounts: bool) -> None:
    if workdir is None:
        raise UserError("the command has no --workdir")
    is_there = (_ADDRESS if mounts else _OF_STORE).fullmatch(workdir)
    if on_buckets and not is_there:
        hint = " with --no-mount, which s3:// needs" if _OF_STORE.fullmatch(workdir) else ""
        raise UserError(
            f"--workdir is {workdir!r}, which is gone with the hosts; give one in a bucket, "
            f"such as gs://BUCKET/runs/mine{hint}"
        )
    if not on_buckets and paths.has_scheme(workdir) and not is_there:
        raise UserError(
            f"--workdir is {workdir!r}; give a directory on the file system that the nodes share, "
            "or an address in a bucket, such as gs://BUCKET/runs/mine"
        )


def _check_mesh(config: configs.Experiment, devices: int, slices: int) -> None:
    parts = make_parts(config)
    whole = mesh.abstract_mesh(parts.layout, devices, slices)
    mesh.check_batch(parts.batch_size, parts.accumulate, whole)


def _bucket_of(argument: str) -> str | None:
    """Returns the bucket that an argument names, as `gs://B/...` or `--flag=gs://B/...`, if any.

    Raises:
        UserError: no bucket can have that name.
    """
    found = _ADDRESS.fullmatch(_value(argument))
    if found is None:
        return None
    if not _BUCKET.fullmatch(found[1]):
        raise UserError(f"{argument!r} names no bucket; write gs://BUCKET/PATH")
    return found[1]


def _mounted(argument: str) -> str:
    value = _value(argument)
    if not _ADDRESS.fullmatch(value):
        return argument
    return argument.removesuffix(value) + f"{MOUNTS}/{value.removeprefix('gs://')}"


def _value(argument: str) -> str:
    return argument.partition("=")[2] if argument.startswith("--") else argument
