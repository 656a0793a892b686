"""launch/submit.py tells each mistake in one sentence, before anything is asked for."""

import pytest
from submitting import PREPARE, RUN, TRAIN, called, words

FTP = (*TRAIN, "--config.data.path=ftp://videos/it's here")
SWEEP = ("stunet", "train", "--config", "experiments/sweeps/temporal_resize_init.py")


@pytest.mark.parametrize(
    ("target", "arguments", "command", "sentence"),
    [
        ("gke", ["--name=Base"], RUN, "--name makes 'Base'; it must be lower-case"),
        ("gke", ["--topology=v5p:4x4"], RUN, "a v5p has a shape such as v5p:4x4x4"),
        ("gke", ["--topology=v5p:1x1x1"], RUN, "1 chips, which do not fill hosts of 4"),
        ("gke", ["--topology=v5p-100"], RUN, "the number counts TensorCores: 8, 16, 32, 64"),
        ("gke", ["--topology=v9:4x4"], RUN, "unknown generation of TPUs 'v9'"),
        ("gke", ["--topology=v5p:2x2x1"], RUN, "does not fit 4 devices"),
        ("gke", ["--slices=2"], (*RUN, "--config.mesh.data=2"), "the devices are 2 slices"),
        ("gke", [], (*RUN, "--config.model.chanels=3"), "did you mean 'model.channels'?"),
        ("gke", [], (*RUN, "--config.data.path="), "data.path is empty; name the directory"),
        ("gke", [], (*RUN, "--workdir=runs/base"), "which is gone with the hosts"),
        ("gke", [], (*RUN, "--workdir=gs:///runs"), "'--workdir=gs:///runs' names no bucket"),
        ("gke", [], RUN[:4], "the command has no --workdir"),
        ("gke", [], ("python", "train.py"), "give the command after --"),
        ("gke", [], ("stunet", "train", "--config", "no.py", "--workdir=gs://bbb/a"), "no.py"),
        ("gke", [], (*SWEEP, "--member=none", "--workdir=gs://bucket/a"), "has no member 'none'; "),
        ("gke", [], PREPARE, "needs no TPU or GPU; submit it with launch/submit.py ray"),
        ("ray", [], RUN, "a Ray cluster prepares videos; give the command after --"),
        ("ray", [], ("stunet", "prepare", "here", "gs://bucket/a"), "'here' is not in a bucket"),
        ("ray", [], (*PREPARE[:3], "/gcs/other/a"), "'/gcs/other/a' is not in a bucket"),
        ("ray", [], (*PREPARE, "--workers=2"), "leave out --engine, --address and --workers"),
        ("ray", [], (*PREPARE, "--engine=processes"), "leave out --engine, --address and"),
        ("ray", ["--name=Shots"], PREPARE, "--name makes 'Shots'; it must be lower-case"),
        ("slurm", [], (*TRAIN, "--workdir=ftp://bucket/a"), "file system that the nodes share"),
        ("gke", [], (*TRAIN, "--workdir=s3://bucket/a"), "with --no-mount, which s3:// needs"),
        ("gke", ["--no-mount"], (*TRAIN, "--workdir=/gcs/bucket/a"), "which is gone with the"),
        ("slurm", [], (*FTP, "--workdir=runs/a"), "it's here\" is an address"),
        ("gke", [], (*RUN, "--config.train.init_from=ftp://b"), "train.init_from: 'ftp://b' is"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_asked_for(target, arguments, command, sentence):
    is_training = "prepare" not in command and target != "ray"
    if is_training and not any("workdir" in word for word in command) and len(command) > 4:
        command = (*command, "--workdir=gs://bucket/a")
    done = called(*words(target, *arguments, command=command))
    assert done.returncode == 1
    assert done.stderr.startswith(f"launch/submit.py {target}: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
