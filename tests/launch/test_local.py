"""launch/local.py runs one command as several processes, which start, end and fail together.

tests/train/test_elastic.py tests that the processes train one network.
"""

import os
import re
import signal
import sys
import time

import pytest
import tiny


def python(code: str) -> list[str]:
    """Returns a command that runs `code`, in which `me` is the number of the process."""
    return [sys.executable, "-c", f"import os, signal, sys, time\nme = sys.argv[-1][-1]\n{code}"]


def test_output_of_the_first_process_goes_through_and_the_flags_are_passed():
    code = "print(me, sys.argv[-3:], os.environ['XLA_FLAGS'].split()[-1])"
    job = tiny.launch(*python(code), processes=3, devices=4)
    out, _ = job.communicate(timeout=30)
    assert job.returncode == 0
    assert re.fullmatch(
        r"0 \['--coordinator=127.0.0.1:\d+', '--processes=3', '--process=0'\] "
        r"--xla_force_host_platform_device_count=4\n",
        out,
    )


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("if me == '1': sys.exit('bad luck')\ntime.sleep(60)", 1,
         "process 1 exited with status 1; stopped the others"),
        ("if me == '0': os.kill(os.getpid(), 9)\ntime.sleep(60)", 137,
         "process 0 was killed by SIGKILL; stopped the others"),
        # A process that ignores SIGTERM is killed.
        ("signal.signal(15, signal.SIG_IGN)\nif me == '1': raise OSError\ntime.sleep(60)", 1,
         "process 1 exited with status 1; stopped the others"),
    ],
)  # fmt: skip
def test_a_process_that_fails_ends_the_job_and_is_named(code, status, sentence):
    begun = time.monotonic()
    job = tiny.launch(*python(code))
    _, errors = job.communicate(timeout=30)
    assert job.returncode == status
    assert errors.splitlines()[-1] == f"launch/local.py: {sentence}"
    assert ("[process 1] bad luck" in errors) == ("bad luck" in code)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_every_process(number):
    code = f"signal.signal({int(number)}, lambda *_: sys.exit(0))\nprint('ready', flush=True)\n"
    job = tiny.launch(*python(code + "signal.pause()"), processes=1)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(number)
    assert job.wait(timeout=20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of it")
def test_processes_do_not_outlive_a_launcher_that_is_killed(tmp_path):
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    code = f"file = open({str(alive)!r}, 'w')\nprint(me, file=file, flush=True)\ntime.sleep(60)"
    job = tiny.launch(*python(code))
    with alive.open() as file:
        assert {file.readline(), file.readline()} == {"0\n", "1\n"}
        begun = time.monotonic()
        job.kill()
        job.communicate(timeout=20)
        # Reading ends when no process has the pipe open any more.
        assert file.read() == ""
    assert time.monotonic() - begun < 20


def test_a_job_that_fails_is_started_again_as_often_as_allowed(tmp_path):
    """Each attempt of process 1 writes a dot; the third attempt is the first that succeeds."""
    lines = tmp_path / "lines"
    code = (
        f"if me == '1':\n    open({str(lines)!r}, 'a').write('.')\n"
        f"    sys.exit(open({str(lines)!r}).read() != '...')"
    )
    job = tiny.launch(*python(code), restarts=2)
    _, errors = job.communicate(timeout=60)
    assert (job.returncode, lines.read_text()) == (0, "...")
    assert "starting again, for time 2 of 2" in errors
    lines.unlink()
    job = tiny.launch(*python(code), restarts=1)
    job.communicate(timeout=60)
    assert (job.returncode, lines.read_text()) == (1, "..")


def test_a_job_that_a_signal_has_ended_is_not_started_again():
    code = "signal.signal(15, lambda *_: sys.exit(75))\nprint('ready', flush=True)\nsignal.pause()"
    job = tiny.launch(*python(code), processes=1, restarts=3)
    assert job.stdout.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    out, errors = job.communicate(timeout=20)
    assert (job.returncode, out) == (75, "")
    assert "again" not in errors


@pytest.mark.parametrize("flag", [dict(restarts=-1), dict(processes=0), dict(devices=0)])
def test_numbers_that_are_too_low_are_refused(flag):
    job = tiny.launch("true", **flag)
    _, errors = job.communicate(timeout=20)
    assert job.returncode == 2
    assert "is not at least" in errors


def test_command_that_does_not_exist():
    job = tiny.launch("no_such_command")
    _, errors = job.communicate(timeout=20)
    assert job.returncode == 127
    assert "cannot run 'no_such_command'" in errors


def test_mistake_of_one_process_ends_all_and_is_told_by_all(tmp_path):
    """Only process 1 gets a config that differs from the one that process 0 has written."""
    command = tiny.command("train", f"--config={tiny.experiment(tmp_path)}")
    code = (
        f"command = {[*command, f'--workdir={tmp_path}']} + sys.argv[1:]\n"
        "os.execv(command[0], command + ['--config.seed=5'] * (me == '1'))"
    )
    begun = time.monotonic()
    job = tiny.launch(*python(code))
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 1
    assert time.monotonic() - begun < 60
    assert errors.splitlines()[-1] == (
        "launch/local.py: process 1 exited with status 1; stopped the others"
    )
    sentence = f"{tmp_path / 'config.json'}, which process 0 has just written, is not this process"
    assert f"stunet train: process 1 failed: {sentence}" in errors
    assert f"[process 1] stunet train: {sentence}" in errors
    assert "Traceback" not in errors
