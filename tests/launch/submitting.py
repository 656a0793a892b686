"""Calls launch/submit.py for each target, with arguments that the target accepts."""

import contextlib
import functools
import io
import pathlib
import re
import subprocess

import submit

ROOT = pathlib.Path(__file__).parents[2]
SUBMIT = ROOT / "launch" / "submit.py"
BASE = "experiments/lumiere_base.py"
IMAGE = "example-docker.pkg.dev/project/stunet:1"
TPUS = ("--topology=v5p:4x4x4", f"--image={IMAGE}")
CLOUD = ("--project=project", "--zone=zone")
TARGETS = {
    "tpu": (*TPUS, *CLOUD),
    "gke": TPUS,
    "xpk": (*TPUS, *CLOUD, "--cluster=cluster"),
    "slurm": ("--nodes=8", "--gpus=8"),
    "ray": ("--workers=3", f"--image={IMAGE}"),
}
TRAIN = ("stunet", "train", "--config", BASE)
RUN = (*TRAIN, "--config.data.path=gs://videos/it's here")
# Under SLURM nothing is mounted.
ON_NODES = (*TRAIN, "--config.data.path=/gcs/videos/it's here", "--workdir=runs/base")
PREPARE = ("stunet", "prepare", "gs://videos/it's here", "gs://bucket/runs/base", "--side=128")
COMMANDS = {"slurm": ON_NODES, "ray": PREPARE}


def words(target: str, *arguments, command=None) -> tuple[str, ...]:
    """Returns the arguments that the target needs, then `arguments` and the command."""
    command = command or COMMANDS.get(target, (*RUN, "--workdir=gs://bucket/runs/base"))
    found = (target, "--name=base", *TARGETS[target], *arguments, "--", *command)
    return tuple(map(str, found))


@functools.cache
def called(*arguments: str) -> subprocess.CompletedProcess:
    """Does what launch/submit.py does with the arguments, in this process: a start takes 2 s."""
    out, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        status = submit.main([*arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def script(target: str, *arguments, command=None) -> str:
    done = called(*words(target, "--dry-run", *arguments, command=command))
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[str]:
    """Returns the here-documents of a script."""
    return re.findall(r"<<'EOF'\n(.*?\n)EOF\n", text, re.DOTALL)
