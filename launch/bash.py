"""Writes bash as a person would: one flag a line, arguments quoted, files as here-documents."""

import itertools
import shlex
import subprocess
import tempfile
from collections.abc import Sequence

# Every script sets this: it ends at a command that fails or a variable that is not set.
STRICT = "set -euo pipefail"

# Characters that have a meaning within $'...'.
_ESCAPES = {"\\": r"\\", "'": r"\'"}


def quote(word: str, hidden: str = "") -> str:
    """Returns a word as bash reads it back: one argument, on one line, whatever it holds.

    Every word of every script is written by this function. No line break is left in it, so that
    scripts can be indented.

    Args:
        word: the word.
        hidden: characters that must not be seen in the result. Bash puts them back in.
    """
    if not any(c < " " or c == "\x7f" or c in hidden for c in word):
        return shlex.quote(word)
    escaped = (
        f"\\x{ord(c):02x}" if c < " " or c == "\x7f" or c in hidden else _ESCAPES.get(c, c)
        for c in word
    )
    return f"$'{''.join(escaped)}'"


def join(words: Sequence[str], hidden: str = "") -> str:
    """Returns the words with spaces between them, each as `quote` returns it."""
    return " ".join(quote(word, hidden) for word in words)


def command(*words: str, end: str = "") -> str:
    """Returns one command, with its flags on lines of their own if it is long.

    Args:
        words: words of the command; each is quoted if bash would interpret it otherwise.
        end: text that follows the command unquoted, such as a redirection.
    """
    parts = [quote(words[0])]
    for word in words[1:]:
        flag = word.startswith("--") and word != "--"
        parts.append((" \\\n  " if flag else " ") + quote(word))
    whole = "".join(parts)
    short = whole.replace(" \\\n  ", " ")
    return (short if len(short) <= 100 else whole) + end


def run(script: str) -> int:
    """Runs a script, and returns its exit status.

    Bash reads it from a file: an argument may have 128 KiB, which a sweep of many members exceeds.
    """
    # Words that are not UTF-8 become the bytes again that they came from.
    options = dict(encoding="utf-8", errors="surrogateescape", suffix=".sh")
    with tempfile.NamedTemporaryFile("w", **options) as file:
        file.write(script)
        file.flush()
        return subprocess.run(["bash", file.name], check=False).returncode


def combine(scripts: Sequence[str]) -> str:
    """Returns one script that runs all scripts at the same time and waits for all of them."""
    head = ["#!/usr/bin/env bash", STRICT]
    if len(scripts) == 1:
        return "\n\n".join([*head, *scripts])
    beside = [f"(\n{script}\n) &\nscripts+=($!)" for script in scripts]
    wait = 'failed=0\nfor script in "${scripts[@]}"; do\n  wait "$script" || failed=1\ndone'
    return "\n\n".join([*head, "scripts=()", *beside, f'{wait}\nexit "$failed"'])


def nest(*commands: str) -> str:
    """Returns one command, in which each command is the last arguments of the one before it."""
    return " \\\n  ".join(commands)


def here_document(text: str) -> str:
    """Returns a here-document that gives `text` to the command before it; nothing is expanded."""
    lines = text.rstrip().split("\n")
    marks = ("EOF" + "_" * count for count in itertools.count())
    mark = next(mark for mark in marks if mark not in lines)
    return "\n".join([f" <<'{mark}'", *lines, mark])
