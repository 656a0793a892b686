"""Real runs that hang, or get a batch that is NaN: they end in time, and continue as if they had
not."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tiny
from test_run import assert_same_bits, parameters

from stunet.train.watchdog import HUNG_STATUS

pytestmark = pytest.mark.slow

FAULTY = pathlib.Path(__file__).with_name("faulty_data.py")
STEPS = 12
FSDP = ("--config.mesh.data=1", "--config.mesh.fsdp=-1")


def command(workdir: pathlib.Path, *arguments: str, fault: tuple = ()) -> list[str]:
    """Returns the command that trains in `workdir`, with a fault such as ("block", 6, 0)."""
    program = [sys.executable, FAULTY, *fault] if fault else tiny.command()
    train = ["train", f"--config={tiny.experiment(workdir.parent)}", f"--workdir={workdir}"]
    settings = [*tiny.ONE_LEVEL, f"--config.train.steps={STEPS}", "--config.checkpoint.every=4"]
    return [str(word) for word in [*program, *train, *settings, *arguments]]


def start(command: list[str], workdir: pathlib.Path, devices: int = 1) -> subprocess.Popen:
    environment = tiny.environment(devices) | {"ONCE": str(workdir.with_name("blocked"))}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def run(command: list[str], workdir: pathlib.Path, devices: int = 1) -> str:
    """Trains to the end, and returns what is on standard error."""
    process = start(command, workdir, devices)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return errors


def wait_for(file: pathlib.Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    return {line["step"]: line.get("loss") for line in tiny.metrics(workdir)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """Trains without a fault."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run(command(workdir), workdir)
    return workdir


@pytest.mark.parametrize(
    ("seconds", "number"), [(5, None), pytest.param(50, signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_data_source_that_blocks_is_noticed_and_the_run_continues(
    whole, tmp_path, seconds, number
):
    workdir = tmp_path / "run"
    faulty = command(workdir, f"--config.train.watchdog_seconds={seconds}", fault=("block", 6, 0))
    process = start(faulty, workdir)
    wait_for(tmp_path / "blocked", process)
    begun = time.monotonic()
    if number:
        time.sleep(1)
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == HUNG_STATUS
    # Five seconds in both cases: after a signal, the limit is a tenth.
    assert 4 < time.monotonic() - begun < 30
    assert "faulty_data.py" in errors
    assert "for 5 s in update 6; " in errors.splitlines()[-1]
    assert "from update 4 on" in run(faulty, workdir)
    assert losses(workdir) == losses(whole)
    assert_same_bits(parameters(workdir, STEPS), parameters(whole, STEPS))


@pytest.mark.parametrize("fault", ["kill", pytest.param("stop", marks=pytest.mark.long)])
def test_a_launcher_starts_a_job_again_that_lost_a_process(whole, tmp_path, monkeypatch, fault):
    """tests/parallel/test_lost.py has processes that are stopped or blocked and a short limit."""
    workdir, log = tmp_path / "run", tmp_path / "log.txt"
    monkeypatch.setenv("ONCE", str(tmp_path / "stopped"))
    faulty = command(workdir, *FSDP, fault=(fault, 6, 1))
    with log.open("w") as errors:
        job = tiny.launch(*faulty, restarts=1, errors=errors)
        try:
            wait_for(tmp_path / "stopped", job)
            begun = time.monotonic()
            while "starting again, for time 1 of 1" not in log.read_text():
                assert job.poll() is None
                time.sleep(0.1)
            # JAX misses the process after 30 s, and the launcher gives it 10 s to end.
            assert time.monotonic() - begun < 90
            job.communicate(timeout=900)
        finally:
            job.kill()  # Its processes die with it.
    assert job.returncode == 0, log.read_text()
    assert losses(workdir) == pytest.approx(losses(whole), rel=1e-5)


def test_run_whose_ninth_batch_is_nan_is_killed_and_continues_bitwise(tmp_path):
    faulty = [
        command(tmp_path / name, "--config.train.on_nonfinite=skip", fault=("nan", 9, 0))
        for name in ("whole", "killed")
    ]
    workdir = tmp_path / "killed"
    process = start([*faulty[1], "--config.checkpoint.every=1"], workdir)
    wait_for(workdir / "checkpoints" / "10", process)
    process.kill()
    process.communicate()
    assert "update 9 is skipped (1 so far): grad_norm and loss are not finite" in run(
        faulty[0], tmp_path / "whole"
    )
    run(faulty[1], workdir)
    assert losses(workdir) == losses(tmp_path / "whole")
    assert losses(workdir)[9] is None
    assert_same_bits(parameters(workdir, STEPS), parameters(tmp_path / "whole", STEPS))
