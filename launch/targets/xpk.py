"""A GKE cluster made by xpk: one workload of it."""

import argparse
import shlex

import bash
import tpus
from jobs import DRIVER_OPTIONS, GRACE_SECONDS, MOUNTS, Job

ON_BUCKETS = True

devices = tpus.devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tpus.add_arguments(parser)
    parser.add_argument("--cluster", required=True, help="made by xpk")
    parser.add_argument("--project", required=True, help="of Google Cloud")
    parser.add_argument("--zone", required=True, help="of the cluster")
    parser.add_argument("--image", required=True, help="made by launch/Dockerfile, and pushed")


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Attaches each bucket to the cluster, which workloads then ask for, and makes the workload."""
    cluster = [
        *("--cluster", arguments.cluster),
        *("--project", arguments.project),
        *("--zone", arguments.zone),
    ]
    lines = []
    for bucket in job.buckets:
        lines.append(f"# Once for the cluster; it says so if {bucket} is attached already.")
        options = ["--type", "gcsfuse", "--bucket", bucket, "--auto-mount", "false"]
        where = ["--mount-point", f"{MOUNTS}/{bucket}", "--readonly", "false", "--size", "1"]
        mount = ["--mount-options", ",".join(DRIVER_OPTIONS)]
        attach = ["xpk", "storage", "attach", _storage(bucket), *options, *where, *mount, *cluster]
        lines.append(bash.command(*attach, end=" || true"))
    tpu = tpus.parse(arguments.topology)
    # xpk calls shapes of three dimensions by their extents, of which one size has several.
    of_shape = f"{tpu.generation.prefix}-{tpu.shape}"
    tpu_type = of_shape if tpu.generation.dimensions == 3 else tpu.accelerator_type
    create = [
        *("xpk", "workload", "create", "--workload", job.name, *cluster),
        *("--tpu-type", tpu_type, "--num-slices", str(arguments.slices)),
        *(["--spot"] if arguments.spot else []),
        *("--docker-image", arguments.image, "--max-restarts", str(job.restarts)),
        *("--termination-grace-period-seconds", str(GRACE_SECONDS)),
        # Whatever ended it but a signal, after which xpk restarts by itself.
        *("--restart-on-exit-codes", "1-126"),
    ]
    for bucket in job.buckets:
        create += ["--storage", _storage(bucket)]
    create += ["--command", shlex.join(["launch/entrypoint.sh", job.logs, *job.command])]
    return "\n".join([*lines, bash.command(*create)])


def _storage(bucket: str) -> str:
    """A name that Kubernetes allows."""
    return bucket.replace("_", "-").replace(".", "-")
