"""Bash as a person would write it: one flag a line, arguments quoted, files as here-documents."""

import shlex
from collections.abc import Sequence

# Set in every script: a command that fails, or a variable that is not set, ends it.
STRICT = "set -euo pipefail"


def command(*words: str, end: str = "") -> str:
    """One command, its flags on lines of their own if it is long.

    Args:
        words: of the command; each is quoted where bash would read more into it.
        end: what follows it as it stands, such as a redirection.
    """
    parts = [shlex.join(words[:1])]
    for word in words[1:]:
        flag = word.startswith("--") and word != "--"
        parts.append((" \\\n  " if flag else " ") + shlex.quote(word))
    whole = "".join(parts)
    short = whole.replace(" \\\n  ", " ")
    return (short if len(short) <= 100 else whole) + end


def at_once(scripts: Sequence[str]) -> str:
    """One script; of several, each runs beside the others, and all are waited for."""
    head = ["#!/usr/bin/env bash", STRICT]
    if len(scripts) == 1:
        return "\n\n".join([*head, *scripts])
    beside = [f"(\n{script}\n) &\nscripts+=($!)" for script in scripts]
    wait = 'failed=0\nfor script in "${scripts[@]}"; do\n  wait "$script" || failed=1\ndone'
    return "\n\n".join([*head, "scripts=()", *beside, f'{wait}\nexit "$failed"'])


def within(*commands: str) -> str:
    """Each command as the last arguments of the one before, which runs it."""
    return " \\\n  ".join(commands)


def here_document(text: str) -> str:
    """`text` as a command's standard input, to follow the command; nothing in it is expanded."""
    return f" <<'EOF'\n{text.rstrip()}\nEOF"
