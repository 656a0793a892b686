"""TPU VMs without a cluster: a queued resource, on all of whose hosts a container runs."""

import argparse
import shlex

import bash
import tpus
from jobs import GCSFUSE_OPTIONS, GRACE_SECONDS, MOUNTS, Job

ON_BUCKETS = True

devices = tpus.devices

# Seconds between two looks at a queued resource, and before a container is begun again.
_LOOK_SECONDS = 60
_PAUSE_SECONDS = 10

_STARTUP = """\
#!/usr/bin/env bash
# On each host of {name}, whenever it starts: the run continues where its checkpoints end.
set -euo pipefail

attribute() {{
  curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \\
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}}

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
run() {{
  command -v gcsfuse > /dev/null || install || return
  for bucket in {buckets}; do
    mount_bucket "$bucket" || return
  done
{login}  docker rm --force stunet 2> /dev/null
  {run}
}}
# What fails here may be what the next attempt finds mended.
for ((attempt = 0; attempt <= {restarts}; attempt++)); do
  if run; then
    break
  fi
  sleep {pause}
done

# It has ended, or failed too often: nobody should pay for it any longer. One host says so.
if [[ $(attribute agent-worker-number) == 0 ]]; then
  {delete}
fi
"""

_LOGIN = "  gcloud auth configure-docker --quiet {registry} || return\n"

# A queued resource that was taken away stays so: it is made anew. One that is gone has ended.
_KEEP = """\
look() {{
  {look}
}}
for ((attempt = 0; attempt <= {restarts}; attempt++)); do
  # What is refused at first is a mistake; later, the place of the last one may not be free yet.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tpus.add_arguments(parser)
    parser.add_argument("--project", required=True, help="of Google Cloud")
    parser.add_argument("--zone", required=True, help="that has such TPUs")
    parser.add_argument("--image", required=True, help="made by launch/Dockerfile, and pushed")
    parser.add_argument(
        "--service-account",
        help="of the VMs: may use the buckets, pull the image and delete TPUs (the project's)",
    )
    parser.add_argument("--runtime", help="version of the VMs' software (the generation's)")


def script(job: Job, arguments: argparse.Namespace) -> str:
    """Asks for the queued resource; with `--spot`, again whenever it is taken away, and waits."""
    tpu = tpus.parse(arguments.topology)
    nodes = ["--node-id", job.name]
    if arguments.slices > 1:
        nodes = ["--node-count", str(arguments.slices), "--node-prefix", job.name]
    create = _gcloud(
        arguments,
        *("create", job.name, *nodes),
        *("--accelerator-type", tpu.accelerator_type),
        *("--runtime-version", arguments.runtime or tpu.generation.runtime),
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
        ended=shlex.quote(f"{job.name} has ended; {_address(job.logs)} has what it printed"),
        delete=_indented(_delete(job, arguments)),
        lost=shlex.quote(f"{job.name} was taken away {job.restarts + 1} times, and is given up"),
    )
    return "\n".join([*lines, keep])


def startup(job: Job, arguments: argparse.Namespace) -> str:
    """What each host does when it starts, and starts again after maintenance."""
    docker = ["docker", "run", "--name", "stunet", "--privileged", "--network", "host"]
    docker += ["--stop-timeout", str(GRACE_SECONDS)]
    run = bash.within(
        bash.command(*docker, "--volume", f"{MOUNTS}:{MOUNTS}", arguments.image),
        bash.command("launch/entrypoint.sh", job.logs),
        bash.command(*job.command),
    )
    registry = arguments.image.split("/")[0]
    private = registry.endswith((".pkg.dev", "gcr.io"))
    return _STARTUP.format(
        name=job.name,
        buckets=shlex.join(job.buckets),
        mounts=MOUNTS,
        options=shlex.join(GCSFUSE_OPTIONS),
        login=_LOGIN.format(registry=shlex.quote(registry)) if private else "",
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
    """The bucket's own address of what is mounted at `path`."""
    return "gs://" + path.removeprefix(f"{MOUNTS}/")
