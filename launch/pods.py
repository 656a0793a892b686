"""Describes what pods of Google Kubernetes Engine share, whatever creates them: mounted buckets."""

import argparse
from typing import Any

import bash
import yaml
from jobs import DRIVER_OPTIONS, MOUNTS, Job

from stunet.commands.parsing import Parser

# For the driver of the buckets. Its sidecar has no limits: a large file would exceed them, and
# Kubernetes would kill it.
_ANNOTATIONS = {
    "gke-gcsfuse/volumes": "true",
    "gke-gcsfuse/cpu-limit": "0",
    "gke-gcsfuse/memory-limit": "0",
    "gke-gcsfuse/ephemeral-storage-limit": "0",
}
SPOT = {"cloud.google.com/gke-spot": "true"}


def add_arguments(parser: Parser) -> None:
    """Adds the arguments that say where pods run, and as whom."""
    parser.options.add_argument(
        "--namespace",
        default="default",
        metavar="NAME",
        help="namespace of Kubernetes (default %(default)s)",
    )
    parser.options.add_argument(
        "--service-account",
        default="default",
        metavar="NAME",
        help="account of Kubernetes that may read and write the buckets (default %(default)s)",
    )
    parser.options.add_argument(
        "--queue", metavar="NAME", help="local queue of Kueue, if the cluster has Kueue"
    )


def metadata(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the metadata of the object that creates the pods."""
    labels = {"kueue.x-k8s.io/queue-name": arguments.queue} if arguments.queue else {}
    return {
        "name": job.name,
        "namespace": arguments.namespace,
        **({"labels": labels} if labels else {}),
    }


def annotations(job: Job) -> dict[str, dict[str, str]]:
    """Returns the metadata of a pod, which is empty if the job mounts no buckets."""
    return {"annotations": dict(_ANNOTATIONS)} if job.buckets else {}


def mounts(job: Job) -> list[dict[str, Any]]:
    """Returns where a container sees the buckets of a job: `gs://B` at `/gcs/B`."""
    return [
        {"name": f"bucket-{i}", "mountPath": f"{MOUNTS}/{bucket}"}
        for i, bucket in enumerate(job.buckets)
    ]


def volumes(job: Job) -> list[dict[str, Any]]:
    """Returns the buckets of a job as volumes of a pod."""
    return [
        {
            "name": f"bucket-{i}",
            "csi": {
                "driver": "gcsfuse.csi.storage.gke.io",
                "volumeAttributes": {
                    "bucketName": bucket,
                    "mountOptions": ",".join(DRIVER_OPTIONS),
                },
            },
        }
        for i, bucket in enumerate(job.buckets)
    ]


def create(manifest: dict[str, Any]) -> str:
    """Returns a script that creates an object. It fails if one of that kind and name exists."""
    text = yaml.safe_dump(manifest, sort_keys=False, width=100)
    return bash.command("kubectl", "create", "--filename", "-", end=bash.here_document(text))
