"""The help of each command: what it says, that it fits a terminal, and that its examples work."""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest

from stunet import cli, configs
from stunet.commands.parsing import Group, wrap
from stunet.sweep import members

ROOT = pathlib.Path(__file__).parents[2]
ALL = dict(cli.STUNET.walk("stunet"))
COMMANDS = {prog: entry for prog, entry in ALL.items() if not isinstance(entry, Group)}
EXAMPLES = [(prog, line) for prog, entry in COMMANDS.items() for line in entry.examples]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("prog", ALL)
def test_help_fits_the_terminal_and_ends_with_two_examples(prog, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = ALL[prog].help(prog)
    assert max(map(len, text.splitlines())) <= columns
    assert "None" not in text
    assert len(ALL[prog].examples) == 2
    assert len(re.findall(rf"\n  {prog}\b", text)) == 2
    assert text.index("usage:") < text.index("\nexamples:")


@pytest.mark.parametrize("prog", COMMANDS)
def test_required_arguments_stand_apart_and_options_say_their_defaults(prog, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    parser = COMMANDS[prog].parser(prog)
    one_of = [group for group in parser._mutually_exclusive_groups if group.required]
    needed = [action for group in one_of for action in group._group_actions]
    required, _, options = COMMANDS[prog].help(prog).partition("\noptions:\n")
    for action in parser._actions:
        name = action.option_strings[0] if action.option_strings else action.metavar
        assert action.help
        assert (f"\n  {name} " in required) == (action.required or action in needed), name
        if action.default not in (None, False, 0, argparse.SUPPRESS):
            default = action.default
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            assert f"(default {shown})" in options


@pytest.mark.parametrize(("prog", "line"), EXAMPLES)
def test_examples_work(prog, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    assert words[: len(prog.split())] == prog.split()
    # As it is printed, over several lines.
    assert shlex.split("\n".join(wrap(line)).replace("\\\n", "")) == words
    parsed = COMMANDS[prog].parser(prog).parse(words[len(prog.split()) :])
    if prog == "stunet sweep":
        assert members.load(parsed.config, parsed.overrides)
    elif "config" in parsed:
        assert configs.load(parsed.config, parsed.overrides)
    else:
        assert configs.override(configs.Config(), parsed.overrides)


def test_the_command_line_starts_without_jax():
    code = (
        "import sys; from stunet import cli; cli.main(['--help']); cli.main(['--version']);"
        "[entry.help(prog) for prog, entry in cli.STUNET.walk('stunet')];"
        "print(sorted({'jax', 'numpy', 'flax', 'absl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_names_what_a_report_of_a_fault_needs(capsys):
    assert cli.main(["--version"]) == 0
    versions = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert versions["jax"] == metadata.version("jax")
    assert versions["jaxlib"] == metadata.version("jaxlib")
    assert versions["Python"] == sys.version.split()[0]
    assert "stunet" in versions


def test_python_runs_the_package_as_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "stunet", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("stunet ")
