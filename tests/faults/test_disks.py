"""A run whose disk is full, read-only or refuses large files says so, and goes on later."""

import random
import subprocess

import pytest
import training
from conftest import seeds

pytestmark = pytest.mark.slow


def check_told(ended, count, what: str) -> None:
    count(f"{what}: told in a sentence" if ended.status else f"{what}: finished all the same")
    count("hangs", ended.hung)
    assert ended.status in (0, 1), ended.output
    assert not ended.unseemly, ended.output
    assert ended.status == 0 or ended.last_line.startswith("stunet train: "), ended.output


def check_goes_on(server, workdir, expected, count) -> None:
    ended = training.finish(server, workdir)
    assert ended.status == 0, ended.output
    found = training.differences(training.result(workdir), expected)
    count("differences", bool(found))
    assert not found


def remount(disk, options: str) -> bool:
    """Changes how a disk is mounted. Returns False if it is busy."""
    command = ["mount", "-o", f"remount,{options}", str(disk)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("seed", seeds("full disk"))
def test_full_disk(server, undisturbed, small_disk, seed, count):
    # The whole run takes 500 KB.
    disk = small_disk(random.Random(seed).randrange(30, 500))
    workdir = disk / "run"
    ended = server.run(*training.words(workdir))
    check_told(ended, count, "full disk")
    assert ended.status == 0 or "is full" in ended.last_line, ended.output
    assert remount(disk, "size=64m")
    check_goes_on(server, workdir, undisturbed[0], count)


@pytest.mark.parametrize("seed", seeds("read-only disk"))
def test_disk_that_becomes_read_only(server, undisturbed, small_disk, seed, count):
    generator, disk = random.Random(seed), small_disk(64_000)
    workdir = disk / "run"
    process = server.start(*training.words(workdir))
    process.has_ended(generator.uniform(0, undisturbed[1]))
    while not process.has_ended() and not remount(disk, "ro"):
        pass
    check_told(process.wait(), count, "read-only disk")
    assert remount(disk, "rw")
    check_goes_on(server, workdir, undisturbed[0], count)


@pytest.mark.parametrize("seed", seeds("file size"))
def test_limit_on_the_size_of_files(server, undisturbed, tmp_path, seed, count):
    limit = int(10 ** random.Random(seed).uniform(1.5, 4.5))
    ended = server.run(*training.words(tmp_path / "run"), limits={"FSIZE": limit})
    check_told(ended, count, "limit on the size of files")
    check_goes_on(server, tmp_path / "run", undisturbed[0], count)
