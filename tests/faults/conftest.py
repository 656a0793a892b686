"""Counts faults, and says at the end how many were tried and what came of them."""

import os
from collections import Counter

import pytest
import training
from processes import Server

# Faults of each kind in the short form, which continuous integration runs, and in the long form
# (`make faults`).
COUNTS = {
    "kill": (4, 102),
    "signal": (6, 120),
    "stop": (1, 20),
    "hang": (1, 20),
    "full disk": (2, 30),
    "read-only disk": (1, 20),
    "file size": (2, 20),
    "clock": (2, 20),
    "mutation": (6, 220),
}
IS_LONG = os.environ.get("FAULTS") == "long"


def seeds(kind: str) -> range:
    """Returns a seed for each fault of a kind."""
    return range(COUNTS[kind][IS_LONG])


def count_mutations(weight: float) -> int:
    """Returns how many mutations of an input are tried."""
    return round(COUNTS["mutation"][IS_LONG] * weight)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("output")) as server:
        yield server


@pytest.fixture(scope="session")
def undisturbed(server, tmp_path_factory):
    """The result of the run that nothing disturbs, and the seconds that it took."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    ended = training.finish(server, workdir)
    assert ended.status == 0, ended.output
    return training.result(workdir), ended.seconds


@pytest.fixture
def count(record_property):
    """`count("kills", 3)` adds to what is printed at the end."""

    def add(what: str, number: int = 1) -> None:
        record_property("fault", (what, number))

    return add


def pytest_terminal_summary(terminalreporter):
    counts = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "fault" and report.when == "call":
                    counts[value[0]] += value[1]
    if counts:
        terminalreporter.section("faults")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{what:40}{number:8,}")
