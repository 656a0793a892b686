"""A damaged or blocked file in a working directory gets one sentence, or does not matter."""

import json
import shutil
import subprocess

import pytest
import tiny

from stunet.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the arguments of a run without --workdir, and the run's directory."""
    directory = tmp_path_factory.mktemp("trained")
    command = ["train", "--config", str(tiny.experiment(directory)), *tiny.ONE_LEVEL]
    command += ["--config.train.steps=2", "--config.log.every=1"]
    assert main([*command, "--workdir", str(directory / "run")]) == 0
    return command, directory / "run"


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained[1], tmp_path / "run")


def cut(file):
    file.write_bytes(file.read_bytes()[:-9])


def not_utf8(file):
    file.write_bytes(b"\xff" + file.read_bytes())


def set_back(file):
    """Makes the run begin after today, as if the clock had been set back since."""
    file.write_text(json.dumps({"began": 2**39}))


def not_a_number(file):
    file.write_text('{"began": NaN}')


def other_types(file):
    file.write_text("null\n[1]\n{}\n")


def replace_by_directory(file):
    file.unlink()
    file.mkdir()


def replace_by_file(directory):
    shutil.rmtree(directory)
    directory.touch()


@pytest.mark.parametrize(
    ("of_metrics", "of_clock", "said"),
    [
        (cut, not_utf8, ("line 2 is damaged", "byte 0 is not UTF-8 text; goodput counts")),
        (not_utf8, not_a_number, ("line 1 is damaged", "clock.json is damaged")),
        (other_types, set_back, ("metrics.jsonl: lines 1, 2, 3 are damaged",)),
    ],
)
def test_a_damaged_account_keeps_no_run_from_continuing(
    trained, copy, of_metrics, of_clock, said, capfd
):
    of_metrics(copy / "metrics.jsonl")
    of_clock(copy / "clock.json")
    assert main([*trained[0], "--change", "train.steps=3", "--workdir", str(copy)]) == 0
    error = capfd.readouterr().err
    assert all(sentence in error for sentence in said)
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 3


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("metrics.jsonl", replace_by_directory, "metrics.jsonl is a directory; move it away"),
        ("clock.json", replace_by_directory, "clock.json: Is a directory; a directory is in the"),
        ("trackers.jsonl", replace_by_directory, "trackers.jsonl is a directory; move it away"),
        ("config.json", replace_by_directory, "config.json is a directory; move it away"),
        ("config.json", not_utf8, "config.json is damaged: byte 0 is not UTF-8 text"),
        ("config.json", cut, "config.json is not JSON"),
        ("config.json", lambda file: file.write_text("null"), "expected object, got null"),
        ("config.json", lambda file: file.write_text("[" * 99999), "nested too deep"),
        ("checkpoints", replace_by_file, "checkpoints is a file, where checkpoints belong"),
    ],
)
def test_what_stands_in_the_way_is_named(trained, copy, name, damage, said, capfd):
    damage(copy / name)
    assert main([*trained[0], "--workdir", str(copy)]) == 1
    error = capfd.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("stunet train: ")]) == 1


@pytest.mark.parametrize("kilobytes", [1030, 1060, 1096])
@pytest.mark.parametrize("command", [["report"], ["sample", "text", "--prompt=a", "--num=4"]])
def test_a_disk_that_fills_up_is_named(trained, small_disk, command, kilobytes, capfd):
    disk = small_disk(1100)
    (disk / "ballast").write_bytes(bytes(kilobytes * 1024))
    where = [] if command == ["report"] else ["--workdir"]
    status = main([*command, *where, str(trained[1]), "--out", str(disk / "out")])
    error = capfd.readouterr().err
    assert status == ("is full; free some space" in error), error
    assert status or kilobytes < 1096
    assert [file for file in disk.rglob("*") if ".partial" in file.name] == []


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["report"],
        ["evaluate", "--metrics=pixels", "--num=2"],
        ["sample", "text", "--prompt=a"],
    ],
    ids=lambda command: command[0],
)
def test_a_directory_that_may_not_be_written_is_named_at_once(trained, small_disk, command, capfd):
    disk = small_disk(20_000)
    shutil.copytree(trained[1], disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    words = trained[0] if command == ["train"] else command
    where = [] if command == ["report"] else ["--workdir"]
    assert main([*words, *where, str(disk / "run")]) == 1
    error = capfd.readouterr().err
    assert f"cannot write {disk / 'run'}" in error
    assert "sampling" not in error
