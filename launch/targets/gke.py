"""Creates a JobSet on Google Kubernetes Engine with kubectl."""

import argparse
from typing import Any

import bash
import tpus
import yaml
from jobs import DRIVER_OPTIONS, GRACE_SECONDS, MOUNTS, Job

from stunet.commands.parsing import Parser

SUMMARY = "create a JobSet on Google Kubernetes Engine with kubectl"

EXAMPLES = (
    "launch/submit.py gke --name base --topology v5p-128 --image IMAGE "
    "-- stunet train --config experiments/lumiere_base.py --workdir gs://BUCKET/runs/base",
    "launch/submit.py gke --name resize --topology v6e:1x1 --image IMAGE --dry-run "
    "-- stunet sweep --config experiments/sweeps/temporal_resize_init.py "
    "--workdir gs://BUCKET/runs/resize",
)

ON_BUCKETS = True

devices = tpus.devices

# No limits for the sidecar that reads and writes the buckets: a large checkpoint would exceed them,
# and Kubernetes would kill it.
_SIDECAR = {
    "gke-gcsfuse/volumes": "true",
    "gke-gcsfuse/cpu-limit": "0",
    "gke-gcsfuse/memory-limit": "0",
    "gke-gcsfuse/ephemeral-storage-limit": "0",
}


def add_arguments(parser: Parser) -> None:
    tpus.add_arguments(parser)
    tpus.add_image(parser)
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


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that creates the JobSet. It fails if one of that name exists."""
    text = yaml.safe_dump(manifest(job, arguments), sort_keys=False, width=100)
    return bash.command("kubectl", "create", "--filename", "-", end=bash.here_document(text))


def manifest(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the JobSet: a Job for each slice, with a pod on each host of the slice.

    If a pod fails, its Job fails. JobSet then restarts all Jobs, because they train as one.
    """
    tpu = tpus.parse(arguments.topology)
    labels = {"kueue.x-k8s.io/queue-name": arguments.queue} if arguments.queue else {}
    one_job = {
        "parallelism": tpu.hosts,
        "completions": tpu.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {
            "metadata": {"annotations": dict(_SIDECAR)},
            "spec": _pod(job, arguments, tpu),
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "namespace": arguments.namespace,
            **({"labels": labels} if labels else {}),
            # Each Job gets a node pool of its own, which is a slice.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {"maxRestarts": job.restarts},
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": arguments.slices,
                    "template": {"spec": one_job},
                }
            ],
        },
    }


def _pod(job: Job, arguments: argparse.Namespace, tpu: tpus.Slice) -> dict[str, Any]:
    spot = {"cloud.google.com/gke-spot": "true"} if arguments.spot else {}
    return {
        "restartPolicy": "Never",
        "serviceAccountName": arguments.service_account,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": tpu.names.accelerator,
            "cloud.google.com/gke-tpu-topology": tpu.shape,
            **spot,
        },
        "containers": [
            {
                "name": "stunet",
                "image": arguments.image,
                # Kubernetes replaces $(NAME), and makes one dollar sign of two.
                "command": [
                    word.replace("$", "$$")
                    for word in ("launch/entrypoint.sh", job.logs, *job.command)
                ],
                "resources": {"limits": {"google.com/tpu": tpu.chips_of_a_host}},
                "volumeMounts": [
                    {"name": f"bucket-{i}", "mountPath": f"{MOUNTS}/{bucket}"}
                    for i, bucket in enumerate(job.buckets)
                ],
            }
        ],
        "volumes": [
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
        ],
    }
