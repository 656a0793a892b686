"""Submits a batch job with a process for each GPU to a cluster under SLURM."""

import argparse

import bash
import jobs
from jobs import GRACE_SECONDS, Job
from local import at_least

from stunet.commands.parsing import Parser

SUMMARY = "submit a batch job to SLURM, with a process for each GPU"

EXAMPLES = (
    "launch/submit.py slurm --name base --nodes 8 --gpus 8 "
    "-- stunet train --config experiments/lumiere_base.py --workdir runs/base",
    "launch/submit.py slurm --name short --gpus 1 --time 2:00:00 --partition gpu --dry-run "
    "-- stunet train --config experiments/quickstart.py --workdir runs/quickstart",
)

_BATCH = """\
#!/usr/bin/env bash
set -uo pipefail

{srun}
status=$?
# The run was stopped, was killed or failed: requeue it, to continue from its latest checkpoint.
if ((status != 0 && ${{SLURM_RESTART_COUNT:-0}} < {restarts})); then
  echo "ended with status $status; requeued"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def add_arguments(parser: Parser) -> None:
    parser.required.add_argument(
        "--gpus", type=at_least(1), required=True, metavar="N", help="GPUs in each node"
    )
    parser.options.add_argument(
        "--nodes",
        type=at_least(1),
        default=1,
        metavar="N",
        help="nodes of the cluster (default %(default)s)",
    )
    parser.options.add_argument(
        "--cpus",
        type=at_least(1),
        metavar="N",
        help="CPUs for the process of each GPU (default: the cluster's)",
    )
    parser.options.add_argument(
        "--time",
        metavar="TIME",
        help="time limit as SLURM writes it, such as 1-12:00:00 (default: the partition's)",
    )
    parser.options.add_argument(
        "--partition", metavar="NAME", help="partition with such nodes (default: the cluster's)"
    )
    parser.options.add_argument(
        "--account", metavar="NAME", help="account to charge (default: the user's)"
    )


def make_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Returns the jobs of a command on nodes that share a file system (`jobs.make_jobs`)."""
    return jobs.make_jobs(
        arguments.name,
        arguments.command,
        arguments.restarts,
        devices=arguments.nodes * arguments.gpus,
        on_buckets=False,
        mounts=False,
    )


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that submits the batch job. Run it from a shell that finds `stunet`."""
    logs = bash.command("mkdir", "-p", "--", job.logs)
    submission = bash.command(
        "sbatch", *options(job, arguments), end=bash.here_document(batch(job, arguments))
    )
    return f"{logs}\n{submission}"


def options(job: Job, arguments: argparse.Namespace) -> list[str]:
    """Returns the options of the job.

    They are arguments of sbatch. As #SBATCH lines they would have to be quoted by other rules.
    """
    values = {
        "job-name": job.name,
        "nodes": arguments.nodes,
        "ntasks-per-node": arguments.gpus,
        "gpus-per-node": arguments.gpus,
        "cpus-per-task": arguments.cpus,
        "time": arguments.time,
        "partition": arguments.partition,
        "account": arguments.account,
        # SLURM sends SIGTERM this many seconds before the time is up.
        "signal": f"TERM@{GRACE_SECONDS}",
        # SLURM replaces what follows a percent sign.
        "output": f"{job.logs.replace('%', '%%')}/%x-%j.log",
        "open-mode": "append",
    }
    return [*(f"--{key}={v}" for key, v in values.items() if v is not None), "--requeue"]


def batch(job: Job, arguments: argparse.Namespace) -> str:
    """Returns the batch script. SLURM starts the processes; JAX finds them by SLURM's variables."""
    # Since SLURM 22.05, srun does not inherit this from the job.
    cpus = [f"--cpus-per-task={arguments.cpus}"] if arguments.cpus else []
    return _BATCH.format(
        srun=bash.nest(bash.command("srun", *cpus), bash.command(*job.command)),
        restarts=job.restarts,
    )
