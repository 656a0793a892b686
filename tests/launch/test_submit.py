"""launch/submit.py prints scripts that the services accept, and runs what it prints.

Models of Kubernetes' and JobSet's schemas read the manifests, and a model of RayJob's. Bash, and
shellcheck and sbatch where they are installed, read the scripts. Each script also runs, with
`gcloud`, `kubectl`, `xpk` and `sbatch` that only note what they are given.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Literal

import msgspec
import pytest
import tiny
import yaml
from kubeflow_trainer_api import models
from submitting import BASE, ROOT, RUN, SUBMIT, TARGETS, TRAIN, called, documents, script, words


def manifest(target: str, *arguments, **keywords) -> dict:
    """Returns what kubectl is given."""
    (document,) = documents(script(target, *arguments, **keywords))
    return yaml.safe_load(document)


def job_set(*arguments, **keywords) -> dict:
    return manifest("gke", *arguments, **keywords)


@pytest.fixture
def recorded(tmp_path):
    """Returns a function that submits for real, with stand-ins for the services' commands.

    The function returns the result, and the arguments and the input of each command that ran.
    """
    stand_in = (
        f"#!{sys.executable}\nimport json, os, pathlib, sys\n"
        "words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]\n"
        "startup = [w.partition('=')[2] for w in words if w.startswith('startup-script=')]\n"
        "given = pathlib.Path(*startup).read_text() if startup else sys.stdin.read()\n"
        f"with open({str(tmp_path / 'ran')!r}, 'a') as file:\n"
        "    file.write(json.dumps([words, given]) + '\\n')\n"
        f"states = pathlib.Path({str(tmp_path / 'states')!r})\n"
        "if 'list' in words and states.exists():\n"
        "    first, *others = json.loads(states.read_text())\n"
        "    states.write_text(json.dumps(others))\n"
        "    print(first)\n"
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gcloud", "kubectl", "xpk", "sbatch", "sleep"):
        (programs / name).write_text(stand_in if name != "sleep" else "#!/bin/sh\n")
        (programs / name).chmod(0o755)

    def run(target: str, *arguments, **keywords):
        path = f"{programs}:{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, SUBMIT, *words(target, *arguments, **keywords)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=100,
            env=os.environ | {"PATH": path},
        )
        lines = (tmp_path / "ran").read_text().splitlines()
        return done, [json.loads(line) for line in lines]

    return run


def trained(text: str) -> list[str]:
    """Returns the words of the `stunet train` in a script."""
    joined = text.replace(" \\\n", " ")
    return shlex.split(joined[joined.index("stunet train") :].split("\n")[0])


def flags(words: list[str]) -> dict[str, str]:
    """Returns the value of each --flag."""
    return {a: b for a, b in zip(words, [*words[1:], ""], strict=True) if a.startswith("--")}


def test_job_set_is_one_by_the_schemas_of_jobset_and_kubernetes():
    for arguments in ((), ("--spot", "--queue=queue", "--service-account=trainer")):
        manifest = job_set(*arguments)
        model = models.JobsetV1alpha2JobSet.from_dict(manifest)
        # The models drop unknown keys and refuse values of another type.
        assert model.to_dict() == manifest


def test_schemas_refuse_what_they_do_not_have():
    """Without this, the test above could not fail."""
    manifest = job_set()
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["template"]["spec"]["containers"][0]["volumeMount"] = []
    assert models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict() != manifest


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of HeadGroupSpec in KubeRay's API reference that are used here."""

    rayStartParams: dict[str, str]
    template: dict


class Workers(Group):
    """Those of WorkerGroupSpec."""

    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int


class AuthOptions(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["disabled", "token"]


class RayCluster(msgspec.Struct, forbid_unknown_fields=True):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: Group
    workerGroupSpecs: list[Workers]


class RayJobSpec(msgspec.Struct, forbid_unknown_fields=True):
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    entrypoint: str
    backoffLimit: int
    shutdownAfterJobFinishes: bool
    rayClusterSpec: RayCluster


class RayJob(msgspec.Struct, forbid_unknown_fields=True):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: dict
    spec: RayJobSpec


def test_ray_job_is_one_by_the_schemas_of_kuberay_and_kubernetes():
    for arguments in ((), ("--spot", "--queue=queue", "--service-account=preparer")):
        found = manifest("ray", *arguments)
        cluster = msgspec.convert(found, RayJob).spec.rayClusterSpec
        assert (
            models.IoK8sApimachineryPkgApisMetaV1ObjectMeta.from_dict(found["metadata"]).to_dict()
            == found["metadata"]
        )
        for group in (cluster.headGroupSpec, *cluster.workerGroupSpecs):
            template = models.IoK8sApiCoreV1PodTemplateSpec.from_dict(group.template)
            assert template.to_dict() == group.template


def test_a_ray_job_asks_for_its_pods():
    cluster = manifest("ray", "--cpus=6", "--memory=24", "--spot")["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert {workers[key] for key in ("replicas", "minReplicas", "maxReplicas")} == {3}
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    size = {"cpu": 6, "memory": "24Gi"}
    assert container["resources"] == {"requests": size, "limits": size}
    assert pod["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    # The cluster ends with its head, which gets no part of the work.
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert "nodeSelector" not in head["template"]["spec"]
    for group in (head, workers):
        (container,) = group["template"]["spec"]["containers"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
            "/gcs/bucket",
            "/gcs/videos",
        }
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert cluster["rayVersion"] == pinned[1]


@pytest.mark.parametrize(
    ("topology", "hosts", "chips", "accelerator_type"),
    [
        ("v4:2x2x4", 4, 4, "v4-32"),
        ("v5p:4x4x4", 16, 4, "v5p-128"),
        ("v5e:16x16", 64, 4, "v5litepod-256"),
        ("v6e:16x16", 64, 4, "v6e-256"),
        ("v6e:2x4", 1, 8, "v6e-8"),
        ("v6e:1x1", 1, 1, "v6e-1"),
    ],
)
def test_every_chip_of_the_topology_is_asked_for(topology, hosts, chips, accelerator_type):
    command = ("stunet", "train", "--config=experiments/quickstart.py", "--workdir=gs://bucket/a")
    fits = ("--config.train.batch_size=256",)
    keywords = dict(command=(*command, *fits))
    job = job_set(f"--topology={topology}", **keywords)["spec"]["replicatedJobs"][0]
    assert job["template"]["spec"]["completions"] == job["template"]["spec"]["parallelism"] == hosts
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.partition(":")[2]
    of_vms = script("tpu", f"--topology={topology}", **keywords)
    assert re.search(r"--accelerator-type (\S+)", of_vms)[1] == accelerator_type


@pytest.mark.parametrize("target", TARGETS)
def test_bash_and_shellcheck_read_the_scripts(target):
    spot = ["--spot"] if target != "slurm" else []
    whole = script(target, *spot)
    inner = [d for d in documents(whole) if d.startswith("#!")]
    assert len(inner) == (target in ("tpu", "slurm"))
    shellcheck = shutil.which("shellcheck")
    for text in (whole, *inner):
        checks = [["bash", "-n"]] + ([[shellcheck, "-s", "bash", "-"]] if shellcheck else [])
        for check in checks:
            done = subprocess.run(check, input=text, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_every_service_runs_the_command_that_was_given(target, recorded):
    """Every word arrives, with mounted buckets and the status that asks for a restart."""
    if target == "ray":
        done, ((words, given),) = recorded(target)
        assert (done.returncode, words) == (0, ["kubectl", "create", "--filename", "-"])
        entrypoint = yaml.safe_load(given)["spec"]["entrypoint"]
        logs = "/gcs/bucket/runs/base.launch"
        assert shlex.split(entrypoint) == [
            *("/stunet/launch/entrypoint.sh", logs, "stunet", "prepare", "--engine", "ray"),
            *("/gcs/videos/it's here", "/gcs/bucket/runs/base", "--side=128"),
        ]
        return
    workdir = "runs/base" if target == "slurm" else "/gcs/bucket/runs/base"
    expected = ["stunet", "train", "--config", BASE, "--config.data.path=/gcs/videos/it's here"]
    expected += [f"--workdir={workdir}", "--stop-status", "75"]
    done, ran = recorded(target)
    assert done.returncode == 0, done.stderr
    words, given = ran[-1]
    logs = f"{workdir}/launch"
    if target == "gke":
        assert words == ["kubectl", "create", "--filename", "-"]
        job = yaml.safe_load(given)["spec"]["replicatedJobs"][0]["template"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        assert container["command"] == ["launch/entrypoint.sh", logs, *expected]
    elif target == "xpk":
        assert flags(words)["--command"] == shlex.join(["launch/entrypoint.sh", logs, *expected])
    else:
        assert trained(given) == expected
        pathlib.Path(ROOT / workdir / "launch").rmdir() if target == "slurm" else None


def test_buckets_of_the_command_are_mounted_under_their_names():
    job = job_set()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    mounts = {m["name"]: m["mountPath"] for m in job["containers"][0]["volumeMounts"]}
    sources = {v["name"]: v["csi"]["volumeAttributes"]["bucketName"] for v in job["volumes"]}
    assert {sources[name]: path for name, path in mounts.items()} == {
        "bucket": "/gcs/bucket",
        "videos": "/gcs/videos",
    }
    startup, *_ = documents(script("tpu"))
    assert re.search(r"^ *for bucket in (.*); do$", startup, re.MULTILINE)[1] == "videos bucket"
    attached = re.findall(r"--bucket (\S+)", script("xpk"))
    assert set(attached) == {"bucket", "videos"}


def test_without_a_mount_every_target_gives_stunet_the_addresses():
    data = "--config.data.path=s3://videos/it's here"
    run = (*TRAIN, data, "--workdir=gs://bucket/runs/base")
    expected = [*run, "--stop-status", "75"]
    logs = "gs://bucket/runs/base/launch"

    found = job_set("--no-mount", command=run)
    assert models.JobsetV1alpha2JobSet.from_dict(found).to_dict() == found
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["launch/entrypoint.sh", logs, *expected]
    assert (container["volumeMounts"], pod["spec"]["volumes"], pod["metadata"]) == ([], [], {})

    of_xpk = script("xpk", "--no-mount", command=run)
    assert "storage" not in of_xpk
    assert shlex.join(["launch/entrypoint.sh", logs, *expected]) in shlex.split(of_xpk)

    whole = script("tpu", "--no-mount", "--spot", command=run)
    assert f"{logs} has what it printed" in whole
    startup, *_ = documents(whole)
    for word in ("gcsfuse", "--volume", "/gcs", "mount"):
        assert word not in startup
    assert trained(startup) == expected
    for text in (whole, startup):
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    # SLURM writes to a file of its nodes.
    whole = script("slurm", command=run)
    assert "--output=base.launch/%x-%j.log" in whole
    (batch,) = documents(whole)
    assert trained(batch) == expected


def test_several_slices():
    slices = ("--slices=2", "--topology=v5p:2x4x4")
    mesh = ("--config.mesh.slice=2", "--config.mesh.data=1", "--config.mesh.fsdp=32")
    command = (*RUN, "--workdir=gs://bucket/a", *mesh)
    (job,) = job_set(*slices, command=command)["spec"]["replicatedJobs"]
    assert (job["replicas"], job["template"]["spec"]["parallelism"]) == (2, 8)
    of_vms = script("tpu", *slices, command=command)
    assert "--node-count 2" in of_vms
    assert "--node-id" not in of_vms


def test_a_pod_that_is_taken_away_is_asked_for_again_until_its_run_has_ended(recorded, tmp_path):
    states = ["WAITING_FOR_RESOURCES", "ACTIVE", "SUSPENDED", "ACTIVE", ""]
    (tmp_path / "states").write_text(json.dumps(states))
    done, ran = recorded("tpu", "--spot")
    assert done.returncode == 0, done.stderr
    assert [words[4] for words, _ in ran] == [
        *("create", "list", "list", "list", "delete"),
        *("create", "list", "list"),
    ]
    assert "base is SUSPENDED" in done.stderr
    assert "base has ended; gs://bucket/runs/base/launch has what it printed" in done.stdout
    assert {given for words, given in ran if words[4] == "create"} == set(documents(script("tpu")))


def test_a_pod_that_is_always_taken_away_is_given_up(recorded, tmp_path):
    (tmp_path / "states").write_text(json.dumps(["FAILED"] * 9))
    done, ran = recorded("tpu", "--spot", "--restarts=2")
    assert done.returncode == 1
    assert [words[4] for words, _ in ran] == ["create", "list", "delete"] * 3
    assert "base was taken away 3 times, and is given up" in done.stderr


def run_startup(
    directory: pathlib.Path, *, fails: int, restarts: int, broken: str = ""
) -> list[str]:
    """Returns the commands that the startup script of a TPU VM runs.

    Args:
        directory: directory for the stand-ins of the commands.
        fails: number of times that the container fails first.
        restarts: number of restarts that are allowed.
        broken: a command that always fails.
    """
    startup, *_ = documents(script("tpu", f"--restarts={restarts}"))
    startup = startup.replace("/gcs", str(directory / "gcs"))
    noted = directory / "noted"
    noted.write_text("")
    for name in ("gcsfuse", "docker", "gcloud", "curl", "sleep", "mountpoint"):
        body = f"#!/bin/bash\necho {name} $* >> {noted}\n"
        if name == "curl":
            body = "#!/bin/bash\necho 0\n"
        if name == "mountpoint":
            body = "#!/bin/bash\nexit 1\n"
        if name == "docker":
            body += f"[[ $1 != run ]] || (( $(grep -c '^docker run' {noted}) > {fails} ))\n"
        body += "exit 1\n" * (name == broken)
        (directory / name).write_text(body)
        (directory / name).chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    done = subprocess.run(
        ["bash", "-c", startup], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return noted.read_text().splitlines()


@pytest.mark.parametrize(("fails", "restarts", "runs"), [(0, 5, 1), (2, 5, 3), (9, 2, 3)])
def test_hosts_begin_again_and_the_pod_is_given_back_at_the_end(tmp_path, fails, restarts, runs):
    noted = run_startup(tmp_path, fails=fails, restarts=restarts)
    assert [line for line in noted if line.startswith("gcsfuse")] == [
        "gcsfuse -o allow_other --implicit-dirs --rename-dir-limit 200000 "
        f"--metadata-cache-ttl-secs 0 --metadata-cache-negative-ttl-secs 0 {b} {tmp_path}/gcs/{b}"
        for _ in range(runs)
        for b in ("videos", "bucket")
    ]
    assert sum(line.startswith("docker run") for line in noted) == runs
    last = "compute tpus queued-resources delete base --force --quiet --project project --zone zone"
    assert noted[-1] == f"gcloud {last}"


def test_a_host_that_cannot_mount_tries_again_and_the_pod_is_given_back(tmp_path):
    noted = run_startup(tmp_path, fails=0, restarts=2, broken="gcsfuse")
    assert sum(line.startswith("gcsfuse") for line in noted) == 3
    assert not any(line.startswith("docker run") for line in noted)
    assert "queued-resources delete base" in noted[-1]


def test_what_is_printed_of_a_sweep_submits_all_and_tells_what_failed(tmp_path):
    """The printed script runs all members at once; a refused one does not end the others."""
    sweep = ("--config", "experiments/sweeps/temporal_resize_init.py", "--workdir", "runs/resize")
    printed = script("slurm", "--gpus=1", "--nodes=1", command=("stunet", "sweep", *sweep))
    for refused in ("none", "base-1"):
        noted = tmp_path / refused
        (tmp_path / "sbatch").write_text(
            f"#!/bin/bash\ncat > /dev/null\necho x >> {noted}\n"
            f'[[ " $* " != *" --job-name={refused} "* ]]\n'
        )
        (tmp_path / "sbatch").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", printed], env=os.environ | {"PATH": path}, cwd=tmp_path, timeout=60
        )
        assert done.returncode == (refused != "none")
        assert len(noted.read_text().split()) == printed.count("<<'EOF'") > 1


def run_batch(directory: pathlib.Path, status: int, restarted: int, restarts: int) -> tuple:
    """Runs a SLURM job whose processes exit with `status`. Returns its status and requeueing."""
    (batch,) = documents(script("slurm", f"--restarts={restarts}"))
    noted = directory / "noted"
    (directory / "srun").write_text(f"#!/bin/bash\nexit {status}\n")
    (directory / "scontrol").write_text(f"#!/bin/bash\necho $* >> {noted}\n")
    for name in ("srun", "scontrol"):
        (directory / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": str(restarted),
    }
    done = subprocess.run(["bash", "-c", batch], env=environment, capture_output=True, timeout=60)
    return done.returncode, noted.exists() and noted.read_text()


@pytest.mark.parametrize(
    ("status", "restarted", "expected"),
    [(0, 0, (0, False)), (75, 0, (75, "requeue 7\n")), (137, 1, (137, "requeue 7\n")),
     (75, 2, (75, False))],
)  # fmt: skip
def test_slurm_jobs_that_end_badly_are_requeued_so_often(tmp_path, status, restarted, expected):
    assert run_batch(tmp_path, status, restarted, restarts=2) == expected


@pytest.mark.skipif(not shutil.which("sbatch"), reason="no sbatch")
def test_sbatch_knows_every_option(tmp_path):
    """sbatch reads its options before it looks for the cluster, and there is no cluster here."""
    cluster = tmp_path / "slurm.conf"
    cluster.write_text(
        "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n"
        "AuthType=auth/none\nCredType=cred/none\nGresTypes=gpu\nNodeName=localhost\n"
        "PartitionName=gpu Nodes=ALL\n"
    )

    def said(options: list[str]) -> str:
        done = subprocess.run(
            ["sbatch", "--test-only", *options],
            input=batch,
            capture_output=True,
            text=True,
            env=os.environ | {"SLURM_CONF": str(cluster)},
            timeout=60,
        )
        return done.stderr

    options = ("--cpus=4", "--time=1-12:00:00", "--partition=gpu", "--account=lab")
    whole = script("slurm", *options)
    (batch,) = documents(whole)
    submission = whole[whole.index("sbatch ") : whole.index(" <<'EOF'")]
    _, *given = shlex.split(submission.replace("\\\n", ""))
    assert "unrecognized option" in said([*given, "--requeues"])
    assert "Invalid --time" in said([*given, "--time=soon"])
    (line,) = said(given).splitlines()
    assert "contact slurm controller" in line


def test_a_sweep_is_a_job_for_each_member(tmp_path, recorded):
    """Each job trains its member as `stunet sweep` would."""
    sweep = "experiments/sweeps/temporal_resize_init.py"
    flags = ("--config", sweep, "--workdir", "gs://bucket/runs/resize", "--config.train.steps=9")
    done, ran = recorded("gke", "--topology=v6e:1x1", command=("stunet", "sweep", *flags))
    assert done.returncode == 0, done.stderr
    manifests = [yaml.safe_load(given) for _, given in ran]
    lines = tiny.run("sweep", *[f.replace("gs://bucket", str(tmp_path)) for f in flags],
                     "--dry-run").stdout.splitlines()  # fmt: skip
    # Steps are no jobs.
    entries = [line for line in lines if line.startswith("stunet train ")]
    assert len(manifests) == len(entries) > 1
    assert {m["metadata"]["name"] for m in manifests} == {f"base-{i}" for i in range(len(entries))}
    for manifest, line in zip(
        sorted(manifests, key=lambda m: int(m["metadata"]["name"][5:])), entries, strict=True
    ):
        pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        words = pod["containers"][0]["command"][2:]
        name = words[words.index("--member") + 1]
        assert f"/gcs/bucket/runs/resize/{name}" == words[words.index("--workdir") + 1]
        assert f"{tmp_path}/runs/resize/{name}" == shlex.split(line)[-1]
        assert words[-3] == "--config.train.steps=9"


@pytest.mark.slow
def test_a_member_is_trained_as_its_sweep_would_have(tmp_path):
    """The jobs of a sweep run `stunet train --member`."""
    sweep = tmp_path / "sweep.py"
    sweep.write_text(
        "import runpy\nfrom stunet.sweep.members import product\n"
        f"def get_sweep():\n    config = runpy.run_path({str(tiny.experiment(tmp_path))!r})\n"
        "    return product(config['get_config'](), {'seed': (3, 4)})\n"
    )
    swept, alone = tmp_path / "swept", tmp_path / "alone"
    steps = "--config.train.steps=2"
    done = tiny.run("sweep", f"--config={sweep}", f"--workdir={swept}", steps, "--dry-run")
    assert done.returncode == 0, done.stderr
    where = [f"--config={sweep}", f"--workdir={alone / 'seed=4'}"]
    done = tiny.run("train", *where, "--member=seed=4", steps)
    assert done.returncode == 0, done.stderr
    here, there = (json.loads((d / "seed=4" / "config.json").read_text()) for d in (alone, swept))
    assert here == there
    done = tiny.run("train", *where, "--member=seed=5", steps)
    assert done.returncode == 1
    assert "has no member " in done.stderr
    assert "its members are 'seed=3', 'seed=4'" in done.stderr


def test_the_pages_show_what_is_printed():
    pages = [ROOT / "docs" / "how-to" / f"{name}.md" for name in ("tpu-vms", "gke", "slurm", "ray")]
    text = "".join(page.read_text() for page in pages)
    shown = re.findall(r"^\$ (launch/submit.py(?:[^\n]*\\\n)*[^\n]*)\n(.*?)```$", text, re.M | re.S)
    assert [command.split()[1] for command, _ in shown] == list(TARGETS)
    for command, expected in shown:
        assert called(*shlex.split(command.replace("\\\n", ""))[1:]).stdout == expected
