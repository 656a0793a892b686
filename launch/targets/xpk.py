"""Creates a workload on a GKE cluster that xpk has made."""

import argparse

import bash
import tpus
from jobs import DRIVER_OPTIONS, GRACE_SECONDS, MOUNTS, Job

from stunet.commands.parsing import Parser

SUMMARY = "create a workload on a GKE cluster that xpk has made"

EXAMPLES = (
    "launch/submit.py xpk --name base --topology v5p-128 --cluster CLUSTER --project PROJECT "
    "--zone ZONE --image IMAGE -- stunet train --config experiments/lumiere_base.py "
    "--workdir gs://BUCKET/runs/base",
    "launch/submit.py xpk --name base --topology v6e-64 --cluster CLUSTER --project PROJECT "
    "--zone ZONE --image IMAGE --dry-run -- stunet train --config experiments/lumiere_base.py "
    "--workdir gs://BUCKET/runs/base",
)

make_jobs = tpus.make_jobs


def add_arguments(parser: Parser) -> None:
    tpus.add_arguments(parser)
    parser.required.add_argument(
        "--cluster", required=True, metavar="NAME", help="cluster that xpk has made"
    )
    tpus.add_place(parser)
    tpus.add_image(parser)


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that attaches each bucket to the cluster and creates the workload."""
    cluster = [
        *("--cluster", arguments.cluster),
        *("--project", arguments.project),
        *("--zone", arguments.zone),
    ]
    lines = []
    for bucket in job.buckets:
        lines.append(f"# Needed once for each cluster. It fails if {bucket} is attached already.")
        options = ["--type", "gcsfuse", "--bucket", bucket, "--auto-mount", "false"]
        where = ["--mount-point", f"{MOUNTS}/{bucket}", "--readonly", "false", "--size", "1"]
        mount = ["--mount-options", ",".join(DRIVER_OPTIONS)]
        attach = ["xpk", "storage", "attach", _storage(bucket), *options, *where, *mount, *cluster]
        lines.append(bash.command(*attach, end=" || true"))
    tpu = tpus.parse(arguments.topology)
    # xpk names slices of three dimensions by their shape, since one size has several shapes.
    of_shape = f"{tpu.generation.prefix}-{tpu.shape}"
    tpu_type = of_shape if tpu.generation.dimensions == 3 else tpu.accelerator_type
    create = [
        *("xpk", "workload", "create", "--workload", job.name, *cluster),
        *("--tpu-type", tpu_type, "--num-slices", str(arguments.slices)),
        *(["--spot"] if arguments.spot else []),
        *("--docker-image", arguments.image, "--max-restarts", str(job.restarts)),
        *("--termination-grace-period-seconds", str(GRACE_SECONDS)),
        # Restart after every failure. After a signal, xpk restarts by itself.
        *("--restart-on-exit-codes", "1-126"),
    ]
    for bucket in job.buckets:
        create += ["--storage", _storage(bucket)]
    # Kubernetes, to which xpk hands the command, replaces $(NAME) and $$ even within quotes.
    command = bash.join(["launch/entrypoint.sh", job.logs, *job.command], hidden="$")
    create += ["--command", command]
    return "\n".join([*lines, bash.command(*create)])


def _storage(bucket: str) -> str:
    """Returns a name that Kubernetes allows."""
    return bucket.replace("_", "-").replace(".", "-")
