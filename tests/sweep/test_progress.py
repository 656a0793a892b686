"""Tests how the progress of a sweep is shown, on a terminal and elsewhere."""

import dataclasses
import io
import json
import sys

import pytest
import tiny

from stunet.sweep import progress
from stunet.sweep.members import Member


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Returns `table(stream)`, a progress table of three members, of which one is half done."""
    members = [Member(name, tiny.config()) for name in ("a", "b", "c")]
    (tmp_path / "b").mkdir()
    line = {"step": 4, "loss": 0.25, "clips_per_second": 0.5}
    # The last line is being written.
    (tmp_path / "b" / "metrics.jsonl").write_text(json.dumps(line) + '\n{"step": 5, "lo')

    def make(stream) -> progress.ProgressTable:
        monkeypatch.setattr(sys, "stderr", stream)
        return progress.ProgressTable(tmp_path, members)

    return make


def test_terminal_has_one_table_that_is_drawn_over(table):
    stream = Terminal()
    with table(stream) as shown:
        shown.log("a: starts")
        shown.draw(["a", "b"], done=0, failed=0)
        shown.log("a: done")
    text = stream.getvalue()
    assert "|##########          | 4/8 b  loss 0.2500, 32 s left" in text
    assert "0 done, 2 running, 1 waiting, 0 failed" in text
    # The three lines of the table were erased before the event was printed.
    assert text.endswith("\033[3A\033[Ja: done\n")


def test_elsewhere_only_events_and_a_table_every_minute(table):
    stream = io.StringIO()
    with table(stream) as shown:
        shown.draw(["b"], done=1, failed=1)
        assert stream.getvalue() == ""
        shown.log("b: starts")
        shown._next = 0  # A minute has passed.
        shown.draw(["b"], done=1, failed=1)
        shown.draw(["b"], done=1, failed=1)
    assert "\033" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 3


def test_steps_of_members_are_their_own(tmp_path):
    train = dataclasses.replace(tiny.config().train, steps=100)
    member = Member("m", dataclasses.replace(tiny.config(), train=train))
    assert "0/100 m" in progress._line(tmp_path, member)
