"""Creates a JobSet on Google Kubernetes Engine with kubectl."""

import argparse
from typing import Any

import pods
import tpus
from jobs import GRACE_SECONDS, Job

from stunet.commands.parsing import Parser

SUMMARY = "create a JobSet on Google Kubernetes Engine with kubectl"

EXAMPLES = (
    "launch/submit.py gke --name base --topology v5p-128 --image IMAGE "
    "-- stunet train --config experiments/lumiere_base.py --workdir gs://BUCKET/runs/base",
    "launch/submit.py gke --name resize --topology v6e:1x1 --image IMAGE --dry-run "
    "-- stunet sweep --config experiments/sweeps/temporal_resize_init.py "
    "--workdir gs://BUCKET/runs/resize",
)

make_jobs = tpus.make_jobs


def add_arguments(parser: Parser) -> None:
    tpus.add_arguments(parser)
    tpus.add_image(parser)
    pods.add_arguments(parser)


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that creates the JobSet. It fails if one of that name exists."""
    return pods.create(manifest(job, arguments))


def manifest(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the JobSet: a Job for each slice, with a pod on each host of the slice.

    If a pod fails, its Job fails. JobSet then restarts all Jobs, because they train as one.
    """
    tpu = tpus.parse(arguments.topology)
    one_job = {
        "parallelism": tpu.hosts,
        "completions": tpu.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {
            "metadata": pods.annotations(job),
            "spec": _pod(job, arguments, tpu),
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            **pods.metadata(job, arguments),
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
    spot = pods.SPOT if arguments.spot else {}
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
                "volumeMounts": pods.mounts(job),
            }
        ],
        "volumes": pods.volumes(job),
    }
