"""Creates a RayJob on Google Kubernetes Engine: a Ray cluster that prepares videos, and ends."""

import argparse
import shlex
from typing import Any

import jobs
import pods
import tpus
from jobs import Job
from local import at_least

from stunet.commands.parsing import Parser

SUMMARY = "create a RayJob on Google Kubernetes Engine, for stunet prepare"

EXAMPLES = (
    "launch/submit.py ray --name shots --workers 16 --image IMAGE "
    "-- stunet prepare gs://BUCKET/list.parquet gs://BUCKET/runs/shots",
    "launch/submit.py ray --name shots --workers 4 --cpus 30 --memory 60 --spot --image IMAGE "
    "--dry-run -- stunet prepare gs://BUCKET/videos gs://BUCKET/runs/shots --side 128",
)

# The version in constraints.txt, and so in the image. KubeRay chooses by it how it looks whether
# Ray's processes are well.
RAY_VERSION = "2.60.0"
# The head runs the command itself, and no part of its work: a cluster ends with its head.
_HEAD_CPUS = 4


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "--workers", type=at_least(1), required=True, metavar="N", help="pods that do the work"
    )
    parser.options.add_argument(
        "--cpus",
        type=at_least(1),
        default=14,
        metavar="N",
        help="CPUs of each of these pods; a node of 16 has that many to give (default %(default)s)",
    )
    parser.options.add_argument(
        "--memory",
        type=at_least(1),
        default=28,
        metavar="GIB",
        help="memory of each pod, GiB (default %(default)s)",
    )
    parser.options.add_argument(
        "--spot", action="store_true", help="use cheaper nodes that may be taken away, for workers"
    )
    tpus.add_image(parser)
    pods.add_arguments(parser)


def make_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Returns the job of `stunet prepare`."""
    return [jobs.make_preparation(arguments.name, arguments.command, arguments.restarts)]


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that creates the RayJob."""
    return pods.create(manifest(job, arguments))


def manifest(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the RayJob: a head that runs the command, and workers that do the parts.

    If a worker is taken away, KubeRay starts another one, and its parts are done again. If the head
    is, or the command fails, a new cluster begins where the last one stopped.
    """
    workers = {
        "groupName": "worker",
        **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), arguments.workers),
        "rayStartParams": {},
        "template": _pod(job, arguments, arguments.cpus, arguments.spot),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": pods.metadata(job, arguments),
        "spec": {
            # Ray hands the entrypoint to a shell. No other one reads it, as `ray job submit` would.
            "submissionMode": "HTTPMode",
            "entrypoint": shlex.join(["/stunet/launch/entrypoint.sh", job.logs, *job.command]),
            "backoffLimit": job.restarts,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": RAY_VERSION,
                # Who reaches a cluster without this may run programs on it.
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0"},
                    "template": _pod(job, arguments, _HEAD_CPUS, is_spot=False),
                },
                "workerGroupSpecs": [workers],
            },
        },
    }


def _pod(job: Job, arguments: argparse.Namespace, cpus: int, is_spot: bool) -> dict[str, Any]:
    size = {"cpu": cpus, "memory": f"{arguments.memory}Gi"}
    return {
        "metadata": pods.annotations(job),
        "spec": {
            "serviceAccountName": arguments.service_account,
            **({"nodeSelector": dict(pods.SPOT)} if is_spot else {}),
            "containers": [
                {
                    "name": "ray",
                    "image": arguments.image,
                    "resources": {"requests": dict(size), "limits": dict(size)},
                    "volumeMounts": pods.mounts(job),
                }
            ],
            "volumes": pods.volumes(job),
        },
    }
