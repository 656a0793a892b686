"""Every `stunet` command of a page is one that the command line takes."""

import contextlib
import pathlib
import re
import shlex

import pytest

from stunet import cli, configs
from stunet.commands.parsing import Group
from stunet.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# A command that holds one of these is no whole one.
PLACEHOLDERS = {"...", "DIR", "NAME", "RUN"}


def whole_commands(text: str) -> list[str]:
    """The commands in blocks of code, each on one line."""
    lines = re.sub(r"\\\n\s*", "", "\n".join(FENCED.findall(text)))
    return re.findall(r"^(?:\$ )?(stunet [a-z]+ [^\n#]*)", lines, re.MULTILINE)


def quoted_commands(text: str) -> list[str]:
    """The commands that a sentence quotes, which may leave out what is required."""
    return re.findall(r"`(stunet\s[a-z]+\s[^`]*--[^`]*)`", FENCED.sub("", text))


def cases(find) -> list:
    found = [(page, shlex.split(line)[1:]) for page in PAGES for line in find(page.read_text())]
    return [pytest.param(words, id=f"{page.stem}: {' '.join(words)}") for page, words in found]


def parser_of(words: list[str]):
    """The parser of the command that the words begin with, and the words that follow."""
    prog, entry = "stunet", cli.STUNET
    while isinstance(entry, Group):
        name, entry = entry.choose(words)
        prog, words = f"{prog} {name}", words[1:]
    return entry.parser(prog), words


@pytest.mark.parametrize("words", cases(whole_commands))
def test_commands_are_taken(words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    if PLACEHOLDERS & {*words}:
        flags_are_known(words)
        return
    command = words[0]
    parser, words = parser_of(words)
    try:
        arguments = parser.parse(words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    config = getattr(arguments, "config", None)
    of_sweep = command == "sweep"
    if parser.takes_keys and config and not (of_sweep or re.search(r"sweeps/|^runs/|^my_", config)):
        # One page shows what a key that is misspelt is answered with.
        wrong = any("chanels" in word for word in words)
        with pytest.raises(UserError) if wrong else contextlib.nullcontext():
            configs.load(config, arguments.overrides)


@pytest.mark.parametrize("words", cases(quoted_commands))
def test_options_that_a_sentence_names_are_taken(words):
    if words[0] in cli.STUNET.commands:
        flags_are_known(words)


def flags_are_known(words: list[str]) -> None:
    parser, words = parser_of(words)
    known = {flag for action in parser._actions for flag in action.option_strings}
    keys = {name for name, _ in configs.fields()}
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        key = flag.removeprefix("--config.")
        assert flag in known or (parser.takes_keys and (key in keys or key.isupper())), flag
