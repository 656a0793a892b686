"""Each word of a command arrives as one argument, whatever it holds, on every target.

The scripts run with stand-ins for `gcloud`, `docker`, `kubectl`, `xpk`, `sbatch` and `srun`, which
note the arguments that they get. Kubernetes' replacement of `$(NAME)` is modelled from its
documentation (Define a Command and Arguments for a Container).
"""

import argparse
import os
import re
import shlex
import subprocess

import bash
import jobs
import pytest
import submit
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

# What a shell, a here-document, YAML, Kubernetes or SLURM could take for its own.
SPECIAL = (
    *("EOF", "\nEOF\ntouch canary\n", "'\ntouch canary\n'", "$(touch canary)", "`touch canary`"),
    *("${HOME}", "$$(HOME)", "$(HOME)", "\\", " \\\n  ", "!x", "*", "~", "#", "%j", "--", "-x", ""),
    *("a\tb\r", "\x01f", "\x7f", "\u2028", "é", "\n#SBATCH --time=1", "'", '"', "{name}", "{{"),
)
WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
) | st.lists(st.sampled_from(SPECIAL), max_size=3).map("".join)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Returns a function that runs bash with the stand-ins, and what was noted.

    The function returns, for each program that ran, its arguments and, where it reads any, its
    input.
    """
    directory = tmp_path_factory.mktemp("bin")
    noted = directory / "noted"
    note = f'#!/bin/bash\nprintf "%s\\0" "${{0##*/}}" "$@" >> {noted}\nprintf "\\1" >> {noted}\n'
    reads = note + f'cat >> {noted}\nprintf "\\1" >> {noted}\n'
    for name in ("mkdir", "curl", "docker", "gcsfuse", "mountpoint", "srun", "sleep", "entrypoint"):
        (directory / name).write_text(note)
    for name in ("kubectl", "sbatch"):
        (directory / name).write_text(reads)
    (directory / "xpk").write_text(note)
    startup = 'for w; do [[ $w != startup-script=* ]] || cat "${w#*=}"; done'
    (directory / "gcloud").write_text(f'{note}{startup} >> {noted}\nprintf "\\1" >> {noted}\n')
    for file in directory.iterdir():
        file.chmod(0o755)

    def run(script: str) -> list[str]:
        noted.write_text("")
        path = f"{directory}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": path, "HOME": "/root"},
            cwd=directory,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert not (directory / "canary").exists()
        # newline="" keeps every "\r".
        with noted.open(encoding="utf-8", newline="") as file:
            return file.read().split("\1")

    return run


def test_a_long_script_runs_and_bytes_that_are_no_text_arrive(tmp_path):
    words = ["x" * 200_000, "caf\udce9"]
    script = f"printf '%s\\0' {bash.join(words)} > {bash.quote(str(tmp_path / 'noted'))}"
    assert bash.run(script) == 0
    assert (tmp_path / "noted").read_bytes().split(b"\0") == [*map(os.fsencode, words), b""]
    assert bash.run("exit 3") == 3


def words(entry: str) -> list[str]:
    return entry.split("\0")[:-1]


def expanded(word: str) -> str:
    """Returns what Kubernetes makes of a word, in a container whose variable HOME is "gone"."""
    return re.sub(
        r"\$(\$|\((\w+)\))",
        lambda m: "$" if m[1] == "$" else "gone" if m[2] == "HOME" else m[0],
        word,
    )


def arguments(target: str, **changes) -> argparse.Namespace:
    found = dict(topology="v6e:1x1", slices=1, spot=False, image="image", project="p", zone="z")
    found |= dict(cluster="c", service_account=None, runtime=None, namespace="n", queue=None)
    found |= dict(nodes=1, gpus=1, cpus=None, time=None, partition=None, account=None)
    found |= dict(workers=1, cpus=1, memory=1) if target == "ray" else {}
    return argparse.Namespace(**found | changes)


@pytest.mark.parametrize("target", submit.TARGETS)
def test_what_goes_in_comes_out_as_one_argument(target, stand_ins):
    module = submit.TARGETS[target]
    where = "/runs/" if target == "slurm" else "gs://bucket/runs/"

    @settings(max_examples=60, derandomize=True, database=None)
    @example("\n".join(SPECIAL), "".join(SPECIAL).replace("/", ""), ["EOF_", "\\\n  x"])
    @given(WORDS, WORDS, st.lists(WORDS, max_size=3))
    def check(prompt, workdir, more):
        # A control byte of the stand-ins' own.
        prompt, workdir, *more = (w.replace("\1", "\2") for w in (prompt, workdir, *more))
        more = [word for word in more if not word.startswith("gs://")]
        command = ["stunet", "sample", "text", "--workdir", f"{where}{workdir}"]
        command += [f"--prompt={prompt}", "--", *more]
        (job,) = jobs.make_jobs(
            "base", command, 0, devices=1, on_buckets=target != "slurm", mounts=target != "slurm"
        )
        expected = list(job.command)
        assert expected == [word.replace("gs://bucket", "/gcs/bucket", 1) for word in command]
        options = dict(image=f"image{workdir}", time=prompt, account=f"a{prompt}")
        ran = stand_ins(bash.combine([module.script(job, arguments(target, **options))]))
        entry = ["launch/entrypoint.sh", job.logs, *expected]
        if target == "gke":
            manifest = yaml.safe_load(ran[1])
            pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
            assert [expanded(word) for word in pod["containers"][0]["command"]] == entry
        elif target == "ray":
            entrypoint = yaml.safe_load(ran[1])["spec"]["entrypoint"]
            inside = entrypoint.removeprefix("/stunet/launch/entrypoint.sh")
            # Ray hands it to the shell of the image.
            ran = stand_ins(f"sh -c {shlex.quote(f'entrypoint{inside}')}")
            assert words(ran[0])[1:] == entry[1:]
        elif target == "xpk":
            given = words(ran[-2])
            inside = expanded(given[given.index("--command") + 1])
            assert words(stand_ins(f"entrypoint {inside}")[0])[1:] == entry
        elif target == "slurm":
            assert words(ran[0]) == ["mkdir", "-p", "--", job.logs]
            assert {f"--time={prompt}", f"--account=a{prompt}"} <= set(words(ran[1]))
            assert words(stand_ins(ran[2])[0])[1:] == expected
        else:
            (docker,) = (w for w in map(words, stand_ins(ran[1])) if w[:2] == ["docker", "run"])
            assert docker[docker.index(f"image{workdir}") + 1 :] == entry

    check()
