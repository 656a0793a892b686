"""Defines what a command is, and parses its arguments."""

import argparse
import contextlib
import dataclasses
import io
import pathlib
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from stunet import extensions
from stunet.commands import mistakes
from stunet.errors import UserError, choose
from stunet.files import refusals_explained
from stunet.stores import addresses, mirror


class Parser(argparse.ArgumentParser):
    """Parses the arguments of one command, and explains a mistake in one sentence.

    Attributes:
        required: group of the arguments that have to be given.
        options: group of the arguments that may be left out.
        takes_keys: True if the command takes `--config.KEY=VALUE`.
    """

    def __init__(self, prog: str, **kwargs):
        # Raw: the examples have lines of their own.
        raw = argparse.RawDescriptionHelpFormatter
        options = dict(allow_abbrev=False, add_help=False, formatter_class=raw)
        super().__init__(prog=prog, **options, **kwargs)
        self.required = self.add_argument_group("required arguments")
        self.options = self.add_argument_group("options")
        self.options.add_argument(
            "-h", "--help", action="help", help="show this help message and exit"
        )
        self.takes_keys = False

    def add_keys(self, example: str) -> None:
        """Lets the command take `--config.KEY=VALUE` flags. The help shows `example`."""
        self.takes_keys = True
        self.add_argument_group(
            "keys of the config",
            f"--config.KEY=VALUE    set any key, for example {example}",
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses the arguments of the command.

        Returns:
            The parsed arguments. The attribute `overrides` lists the flags that set keys of the
            config.

        Raises:
            SystemExit: an argument is missing or unknown, or has a wrong value. One sentence about
                the mistake is printed.
        """
        # Before argparse, which would call an argument that is misspelt a missing one.
        for place, argument in enumerate(arguments):
            if argument == "--":
                break
            if argument.startswith("--") and not self._knows(argument):
                self._refuse(argument, arguments[place + 1 :])
        parsed, rest = self.parse_known_args(arguments)
        for argument in rest:
            if not self._sets_key(argument):
                self._refuse(argument, ())
        parsed.overrides = rest
        return parsed

    def error(self, message: str) -> None:
        """Prints `message` in one line and exits with status 2."""
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")

    def format_usage(self) -> str:
        """Returns the usage, with every required argument, and "[options]" for all others."""
        return f"{self._usage()}\n"

    def format_help(self) -> str:
        """Returns the help, which begins with the usage from `format_usage`."""
        self.usage = self._usage().removeprefix("usage: ")
        return super().format_help()

    def _usage(self) -> str:
        choices = [group for group in self._mutually_exclusive_groups if group.required]
        words = [f"usage: {self.prog}"]
        required = [action for action in self._actions if action.required]
        words += [_shown(action) for action in required if action.option_strings]
        words += [f"({' | '.join(map(_shown, group._group_actions))})" for group in choices]
        words.append("[options]")
        if self.takes_keys:
            words.append("[--config.KEY=VALUE ...]")
        words += [_shown(action) for action in required if not action.option_strings]
        return "\n".join(fold(words))

    def _sets_key(self, argument: str) -> bool:
        return self.takes_keys and argument.startswith("--config.") and "=" in argument

    def _knows(self, argument: str) -> bool:
        # What has a space is a value, as of --prompt.
        name = argument.partition("=")[0]
        return " " in name or name in self._option_string_actions or self._sets_key(argument)

    def _refuse(self, argument: str, following: Sequence[str]) -> None:
        flags = self._option_string_actions
        self.error(mistakes.explain(argument, following, flags, self.takes_keys))


def _shown(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    return " ".join([*action.option_strings[:1], value])


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `stunet`, or a task of `stunet sample`.

    Attributes:
        summary: one line for the list of commands.
        add_arguments: adds the arguments of the command to a parser.
        run: runs the command and returns the exit status; None means 0.
        examples: command lines that work.
        opens: arguments of files and directories that `run` downloads and uploads itself if they
            are in a bucket.
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int | None]
    examples: tuple[str, ...]
    opens: tuple[str, ...] = ()

    def parser(self, prog: str) -> Parser:
        """Returns the parser of the command, which is called `prog` on the command line."""
        epilog = _shown_examples(self.examples)
        parser = Parser(prog, description=_sentence(self.summary), epilog=epilog)
        self.add_arguments(parser)
        parser.options.add_argument(
            "--trust",
            metavar="PACKAGE,...",
            help="packages whose code may run if a config names an object in them, such as "
            "my_package.samplers:mine (default: none)",
        )
        return parser

    def help(self, prog: str) -> str:
        """Returns the help of the command."""
        return self.parser(prog).format_help()


@dataclasses.dataclass(frozen=True)
class Group:
    """A table of commands. The next word of the command line chooses one of them.

    Attributes:
        summary: one line about the group.
        kind: what the next word names, such as "command" or "task".
        commands: commands, or groups of commands, by name.
        examples: command lines that work.
        options: maps each flag of the group itself, such as "--version", to its help text and a
            function. If the user gives the flag, the result of the function is printed.
    """

    summary: str
    kind: str
    commands: "Mapping[str, Command | Group]"
    examples: tuple[str, ...]
    options: Mapping[str, tuple[str, Callable[[], str]]] = dataclasses.field(default_factory=dict)

    def help(self, prog: str) -> str:
        """Returns the help of the group, which is called `prog` on the command line."""
        word, width = self.kind.upper(), max(map(len, [*self.commands, "-h, --help"])) + 2
        lines = [f"usage: {prog} {word} ...", "", _sentence(self.summary), "", f"{self.kind}s:"]
        lines += [f"  {name:{width}}{one.summary}" for name, one in self.commands.items()]
        options = {"-h, --help": "show this help and exit"}
        options |= {flag: text for flag, (text, _) in self.options.items()}
        lines += ["", "options:"]
        lines += [f"  {flag:{width}}{text}" for flag, text in options.items()]
        lines += ["", _shown_examples(self.examples), ""]
        lines += [f"`{prog} {word} --help` shows the arguments of one {self.kind}."]
        return "\n".join(lines)

    def choose(self, words: Sequence[str]) -> tuple[str, "Command | Group"]:
        """Returns the first of `words`, and the command or group of that name.

        Raises:
            UserError: the first word is not the name of a command or group.
        """
        names = ", ".join(self.commands)
        if not words or words[0].startswith("-"):
            raise UserError(f"name a {self.kind} first, as in `{self.examples[0]}`: one of {names}")
        return words[0], choose(self.commands, words[0], self.kind)

    def walk(self, prog: str) -> "Iterator[tuple[str, Command | Group]]":
        """Yields the group and all commands in it, each with the words that call it."""
        yield prog, self
        for name, entry in self.commands.items():
            if isinstance(entry, Group):
                yield from entry.walk(f"{prog} {name}")
            else:
                yield f"{prog} {name}", entry


def run(group: Group, prog: str, words: Sequence[str]) -> int:
    """Runs the command of `group` that `words` name, or prints help if `words` ask for it.

    Returns:
        The exit status of the command. After a `UserError`, prints the error and returns 1.

    Raises:
        SystemExit: the help of a command was printed (status 0), or the arguments of the command
            are wrong (status 2).
    """
    entry = group
    try:
        while isinstance(entry, Group):
            first = next(iter(words), "")
            if first in ("-h", "--help"):
                print(entry.help(prog))
                return 0
            if first in entry.options:
                print(entry.options[first][1]())
                return 0
            name, entry = entry.choose(words)
            prog, words = f"{prog} {name}", words[1:]
        parsed = entry.parser(prog).parse(words)
        extensions.trust(parsed.trust or "")
        parsed.command_line = shlex.join([*prog.split(), *words])
        given = vars(parsed)
        copies = list(_copies(given.values()))
        others = list(_copies(value for name, value in given.items() if name not in entry.opens))
        with refusals_explained(), mirror.kept_alike(others), _addresses_shown(copies):
            return entry.run(parsed) or 0
    except UserError as error:
        print(addresses.shown(f"{prog}: {error}"), file=sys.stderr)
        return 1


def _copies(values: Iterable[object]) -> Iterator[pathlib.Path]:
    """Yields the arguments, and items of lists, that are copies of what is in a bucket."""
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, pathlib.Path) and addresses.address(item):
                yield item


@contextlib.contextmanager
def _addresses_shown(copies: Collection[pathlib.Path]) -> Iterator[None]:
    """Context manager in which addresses are printed in place of the paths of their copies."""
    if not copies:
        yield
        return
    with contextlib.redirect_stdout(_Shown(sys.stdout)):
        yield


class _Shown(io.TextIOBase):
    """Writes text to another stream, with addresses in place of the paths of copies."""

    def __init__(self, out: TextIO):
        self._out = out

    def write(self, text: str) -> int:
        self._out.write(addresses.shown(text))
        return len(text)

    def flush(self) -> None:
        self._out.flush()


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _shown_examples(examples: Sequence[str]) -> str:
    lines = [f"  {line}" for example in examples for line in wrap(example)]
    return "\n".join(["examples:", *lines])


def wrap(example: str) -> list[str]:
    """Breaks a command line at its flags into several lines, which a shell reads as one."""
    pieces: list[str] = []
    for word in shlex.split(example):
        quoted = word if shlex.quote(word) == word else f'"{word}"'
        if pieces and not word.startswith("--"):
            pieces[-1] += f" {quoted}"
        else:
            pieces.append(quoted)
    return fold(pieces, end=" \\")


def fold(pieces: Sequence[str], end: str = "", width: int = 78) -> list[str]:
    """Joins pieces of text into lines of at most `width` characters.

    Appends `end` to all lines but the last.
    """
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + 1 + len(piece) + len(end) > width:
            lines[-1] += end
            lines.append(f"  {piece}")
        else:
            lines[-1] += f" {piece}"
    return lines
