"""Writes bash as a person would: one flag a line, arguments quoted, files as here-documents."""

import shlex
from collections.abc import Sequence

# Every script sets this: it ends at a command that fails or a variable that is not set.
STRICT = "set -euo pipefail"


def command(*words: str, end: str = "") -> str:
    """Returns one command, with its flags on lines of their own if it is long.

    Args:
        words: words of the command; each is quoted if bash would interpret it otherwise.
        end: text that follows the command unquoted, such as a redirection.
    """
    parts = [shlex.join(words[:1])]
    for word in words[1:]:
        flag = word.startswith("--") and word != "--"
        parts.append((" \\\n  " if flag else " ") + shlex.quote(word))
    whole = "".join(parts)
    short = whole.replace(" \\\n  ", " ")
    return (short if len(short) <= 100 else whole) + end


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
    return f" <<'EOF'\n{text.rstrip()}\nEOF"
