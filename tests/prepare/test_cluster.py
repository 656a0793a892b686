"""A Ray cluster does what one process does, also if its processes die."""

import os
import pathlib

import pytest
from working import work, work_that_dies, work_that_fails

from stunet.commands.prepare import COMMAND
from stunet.errors import UserError
from stunet.prepare import cluster

PARTS = [(0, 1, 2), (3,), (4, 5), (6, 7, 8, 9)]


def wholes(events):
    return sorted(event[1:] for _, event in events if isinstance(event, tuple))


@pytest.fixture(scope="module")
def engine(monkeypatch_module):
    pytest.importorskip("ray")
    return cluster.ray_cluster()


@pytest.fixture(scope="module")
def monkeypatch_module():
    """Ray's processes find the work in this folder, and send nothing home."""
    with pytest.MonkeyPatch.context() as patch:
        here = str(pathlib.Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield patch


@pytest.mark.slow
def test_every_part_is_done_once(engine):
    events = list(engine(work, iter(PARTS)))
    assert wholes(events) == [(part, []) for part in PARTS]
    for part in PARTS:
        items = [event for of, event in events if of == part and not isinstance(event, tuple)]
        assert items == [item**2 for item in part]


@pytest.mark.slow
def test_an_item_that_kills_its_process_twice_is_left_out(engine):
    events = list(engine(work_that_dies, PARTS))
    assert wholes(events) == [((0, 1, 2), []), ((3,), []), ((4, 5), [1]), ((6, 7, 8, 9), [])]


@pytest.mark.slow
def test_an_error_ends_the_command(engine):
    with pytest.raises(UserError, match=r"^item 4 is wrong$"):
        list(engine(work_that_fails, PARTS))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"no Ray cluster at 127\.0\.0\.1:9 .*refused"),
        ("somewhere", "'somewhere' is no address of a Ray cluster"),
    ],
)
def test_a_cluster_that_is_not_there_is_told(engine, address, message):
    with pytest.raises(UserError, match=message):
        list(cluster.ray_cluster(address)(work, PARTS))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "a:1"], "give --engine ray too"),
        (["--engine", "ray", "--workers", "2"], "leave it out with --engine ray"),
    ],
)
def test_options_of_the_other_engine_are_refused(tmp_path, words, message):
    parsed = COMMAND.parser("stunet prepare").parse([str(tmp_path), str(tmp_path / "out"), *words])
    with pytest.raises(UserError, match=message):
        COMMAND.run(parsed)
