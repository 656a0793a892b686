"""Asks for TPU VMs as a queued resource, and runs a container on each of its hosts."""

import argparse

import bash
import tpus
from jobs import GCSFUSE_OPTIONS, GRACE_SECONDS, MOUNTS, Job

from stunet.commands.parsing import Parser

SUMMARY = "run on TPU VMs of Google Cloud, without a cluster"

EXAMPLES = (
    "launch/submit.py tpu --name base --topology v5p-128 --project PROJECT --zone ZONE "
    "--image IMAGE -- stunet train --config experiments/lumiere_base.py --workdir gs://BUCKET/runs/base",
    "launch/submit.py tpu --name base --topology v6e-64 --project PROJECT --zone ZONE "
    "--image IMAGE --spot --dry-run -- stunet train --config experiments/lumiere_base.py "
    "--workdir gs://BUCKET/runs/base",
)

make_jobs = tpus.make_jobs

# Seconds between two checks of a queued resource, and before a container restarts.
_LOOK_SECONDS = 60
_PAUSE_SECONDS = 10

_STARTUP = """\
#!/usr/bin/env bash
# Runs on each host of {name} whenever it starts. The run continues from its latest checkpoint.
set -euo pipefail

attribute() {{
  curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \\
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}}

{mount}run() {{
{mount_all}{login}  docker rm --force stunet 2> /dev/null
  {run}
}}
# A failure may be temporary, so try again.
for ((attempt = 0; attempt <= {restarts}; attempt++)); do
  if run; then
    break
  fi
  sleep {pause}
done

# The run has ended or failed too often. One host deletes the TPUs, which cost money until then.
if [[ $(attribute agent-worker-number) == 0 ]]; then
  {delete}
fi
"""

# Parts of it, for a job that mounts buckets.
_MOUNT = """\
install() {{
  local source=https://packages.cloud.google.com/apt
  curl --silent --fail "$source/doc/apt-key.gpg" > /etc/apt/trusted.gpg.d/google.asc &&
    echo "deb $source gcsfuse-$(lsb_release --codename --short) main" \\
      > /etc/apt/sources.list.d/gcsfuse.list &&
    apt-get --option DPkg::Lock::Timeout=600 update &&
    apt-get --option DPkg::Lock::Timeout=600 install --yes gcsfuse
}}
mount_bucket() {{
  mkdir -p "{mounts}/$1"
  mountpoint --quiet "{mounts}/$1" || gcsfuse -o allow_other \\
    {options} "$1" "{mounts}/$1"
}}
"""
_MOUNT_ALL = """\
  command -v gcsfuse > /dev/null || install || return
  for bucket in {buckets}; do
    mount_bucket "$bucket" || return
  done
"""
_LOGIN = "  gcloud auth configure-docker --quiet {registry} || return\n"

# A preempted queued resource does not come back, so create it again. If none is listed, the run has
# ended.
_KEEP = """\
look() {{
  {look}
}}
for ((attempt = 0; attempt <= {restarts}; attempt++)); do
  # The first attempt fails for a mistake. A later one may fail because the last is not deleted yet.
  {create} || {{ ((attempt)) && sleep {pause} && continue; }}
  while sleep {pause}; do
    state=$(look) || continue
    case $state in
      '') echo {ended} && exit ;;
      FAILED | SUSPENDED) break ;;
    esac
  done
  echo "{name} is $state" >&2
  {delete} || true
done
echo {lost} >&2
exit 1"""


def add_arguments(parser: Parser) -> None:
    tpus.add_arguments(parser)
    tpus.add_place(parser)
    tpus.add_image(parser)
    parser.options.add_argument(
        "--service-account",
        metavar="EMAIL",
        help="account of the VMs, which may use the buckets, pull the image and delete TPUs "
        "(default: the project's)",
    )
    parser.options.add_argument(
        "--runtime",
        metavar="VERSION",
        help="version of the VMs' software, such as v2-alpha-tpuv6e (default: the generation's)",
    )


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Returns a script that asks for the queued resource. With `--spot` the script waits, and asks
    again whenever the resource is preempted."""
    tpu = tpus.parse(arguments.topology)
    nodes = ["--node-id", job.name]
    if arguments.slices > 1:
        nodes = ["--node-count", str(arguments.slices), "--node-prefix", job.name]
    create = _gcloud(
        arguments,
        *("create", job.name, *nodes),
        *("--accelerator-type", tpu.accelerator_type),
        *("--runtime-version", arguments.runtime or tpu.names.runtime),
        *(["--service-account", arguments.service_account] if arguments.service_account else []),
        *(["--spot"] if arguments.spot else []),
        end=' \\\n  --metadata-from-file startup-script="$startup"',
    )
    lines = [
        "startup=$(mktemp)",
        "trap 'rm \"$startup\"' EXIT",
        'cat > "$startup"' + bash.here_document(startup(job, arguments)),
    ]
    if not arguments.spot:
        return "\n".join([*lines, create])
    listing = ["list", "--filter", f"name ~ /{job.name}$", "--format", "value(state.state)"]
    keep = _KEEP.format(
        name=job.name,
        restarts=job.restarts,
        create=_indented(create),
        pause=_LOOK_SECONDS,
        look=_indented(_gcloud(arguments, *listing)),
        ended=bash.quote(f"{job.name} has ended; {_address(job.logs)} has what it printed"),
        delete=_indented(_delete(job, arguments)),
        lost=bash.quote(f"{job.name} was taken away {job.restarts + 1} times, and is given up"),
    )
    return "\n".join([*lines, keep])


def startup(job: Job, arguments: argparse.Namespace) -> str:
    """Returns the script that each host runs when it starts, also after maintenance."""
    docker = ["docker", "run", "--name", "stunet", "--privileged", "--network", "host"]
    docker += ["--stop-timeout", str(GRACE_SECONDS)]
    mount = mount_all = ""
    if job.buckets:
        docker += ["--volume", f"{MOUNTS}:{MOUNTS}"]
        mount = _MOUNT.format(mounts=MOUNTS, options=bash.join(GCSFUSE_OPTIONS))
        mount_all = _MOUNT_ALL.format(buckets=bash.join(job.buckets))
    run = bash.nest(
        bash.command(*docker, arguments.image),
        bash.command("launch/entrypoint.sh", job.logs),
        bash.command(*job.command),
    )
    registry = arguments.image.split("/")[0]
    private = registry.endswith((".pkg.dev", "gcr.io"))
    return _STARTUP.format(
        name=job.name,
        mount=mount,
        mount_all=mount_all,
        login=_LOGIN.format(registry=bash.quote(registry)) if private else "",
        run=_indented(run),
        restarts=job.restarts,
        pause=_PAUSE_SECONDS,
        delete=_indented(_delete(job, arguments)),
    )


def _delete(job: Job, arguments: argparse.Namespace) -> str:
    return _gcloud(arguments, "delete", job.name, "--force", "--quiet")


def _gcloud(arguments: argparse.Namespace, *words: str, end: str = "") -> str:
    where = ["--project", arguments.project, "--zone", arguments.zone]
    return bash.command(*("gcloud", "compute", "tpus", "queued-resources"), *words, *where, end=end)


def _indented(lines: str) -> str:
    return lines.replace("\n", "\n  ")


def _address(path: str) -> str:
    """Returns the address of a path below `MOUNTS`, or of a path that is one."""
    below = path.removeprefix(f"{MOUNTS}/")
    return path if below == path else f"gs://{below}"
