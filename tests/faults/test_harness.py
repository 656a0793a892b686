"""The harness itself works in a process with many open files, and after a failure."""

import os
import resource
import subprocess

import pytest
from inputs import Worlds
from processes import Ended, Process


@pytest.fixture
def many_open_files():
    """Opens so many files that the next ones get descriptors above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_000), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_024)]
    yield
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_process_is_waited_for_when_many_files_are_open(many_open_files, tmp_path):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        process = Process(None, child.pid, tmp_path / "log")
        assert not process.has_ended(0.01)
        child.stdin.close()
        assert process.has_ended(60)
        os.close(process._pidfd)


def test_world_that_could_not_be_made_is_made_again(tmp_path):
    ends = [Ended(1, "the disk is full", 0.1, 0), Ended(0, "", 0.1, 0)]

    class Server:
        def run(self, *_) -> Ended:
            return ends.pop(0)

    worlds = Worlds(tmp_path, Server())
    with pytest.raises(AssertionError, match="the disk is full"):
        worlds("run")
    made = worlds("run")
    assert (made / "experiment.py").exists()
    assert worlds("run") == made
    assert not ends
