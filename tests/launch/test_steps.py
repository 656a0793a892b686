"""launch/steps.py writes a script that does what Docker does with the Dockerfile."""

import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
STEPS = LAUNCH / "steps.py"


def said(steps: pathlib.Path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, steps, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def with_dockerfile(directory: pathlib.Path, text: str) -> pathlib.Path:
    """Returns a copy of launch/steps.py beside another Dockerfile."""
    (directory / "launch").mkdir()
    (directory / "launch" / "Dockerfile").write_text(text)
    return pathlib.Path(shutil.copy(STEPS, directory / "launch"))


def test_the_script_makes_what_the_image_would_hold(tmp_path):
    """The Dockerfile has every known instruction, and the virtual environment is a real one."""
    context = tmp_path / "it's here"
    (context / "package" / "inner").mkdir(parents=True)
    (context / "package" / "inner" / "module.py").write_text("x = 1\n")
    for name in ("a.txt", "b.txt"):
        (context / name).write_text(name)
    steps = with_dockerfile(
        context,
        "# A comment.\nFROM python:3.11-slim\nARG WORD=unsaid\nARG OTHER=kept\n"
        'ENV GREETING="good day"\nWORKDIR /app\nCOPY a.txt b.txt ./\nCOPY package package\n'
        'RUN echo "$GREETING $WORD $OTHER" > said.txt \\\n  && python -c '
        "\"import sys; open('prefix.txt', 'w').write(sys.prefix)\"\nCMD [\"cat\"]\n",
    )
    root = tmp_path / "image"
    script = said(steps, "--root", root, "WORD=said")
    assert (script.returncode, script.stderr) == (0, "")
    done = subprocess.run(["bash"], input=script.stdout, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 0
    app = root / "app"
    assert (app / "said.txt").read_text() == "good day said kept\n"
    assert (app / "prefix.txt").read_text() == str(root / "venv")
    assert (app / "package" / "inner" / "module.py").read_text() == "x = 1\n"
    assert [(app / name).read_text() for name in ("a.txt", "b.txt")] == ["a.txt", "b.txt"]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
def test_shellcheck_reads_the_script_of_the_real_dockerfile():
    script = said(STEPS, "--root", "an image", "EXTRA=cuda")
    done = subprocess.run(["shellcheck", "-"], input=script.stdout, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("FROM python:3.11\nHEALTHCHECK NONE", (), "HEALTHCHECK NONE is not known here"),
        ("FROM debian", (), "FROM debian is not known here"),
        ("FROM python:3.11\nCOPY absent .", (), "which the Dockerfile copies"),
        ("FROM python:3.11\nARG A=1", ("B=2",), "has no ARG B"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, text, arguments, sentence):
    done = said(with_dockerfile(tmp_path, text), "--root", tmp_path / "image", *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_entrypoint_keeps_what_the_command_prints_and_lets_signals_through(tmp_path):
    command = "trap 'echo stopped; exit 75' TERM; echo ready; while true; do sleep 0.05; done"
    logs = tmp_path / "runs" / "launch"
    process = subprocess.Popen(
        [LAUNCH / "entrypoint.sh", logs, "bash", "-c", command], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 75
    (log,) = logs.iterdir()
    assert log.read_text() == "ready\nstopped\n"
