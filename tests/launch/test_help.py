"""The help of launch/submit.py: it fits a terminal, and its examples work."""

import pathlib
import shlex
import sys

import pytest

from stunet.commands.parsing import Group

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def submit():
    """launch/submit.py as a module."""
    before = sys.path.copy()
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        import submit
    finally:
        sys.path[:] = before
    return submit


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(submit, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for prog, entry in submit.commands().walk("launch/submit.py"):
        text = entry.help(prog)
        assert max(map(len, text.splitlines())) <= columns
        assert "None" not in text


def test_examples_work(submit, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for _, entry in submit.commands().walk("launch/submit.py"):
        assert len(entry.examples) == 2
        for example in () if isinstance(entry, Group) else entry.examples:
            prog, *words = shlex.split(example.replace("BUCKET", "bucket"))
            assert prog == "launch/submit.py"
            # Printed, and not submitted.
            assert submit.main([*words[:1], "--dry-run", *words[1:]]) == 0
            printed = capsys.readouterr().out
            assert printed.startswith("#!/usr/bin/env bash")
            assert "runs/" in printed
