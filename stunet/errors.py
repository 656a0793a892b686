"""The one exception for mistakes that a user can make and mend."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Entry = TypeVar("Entry")


class UserError(Exception):
    """Says in one sentence what was wrong, where, and what would be right.

    The command line prints the sentence without a traceback and exits with status 1.
    """


def choose(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """Returns `table[name]`.

    Args:
        table: the choices by name.
        name: what the user asked for.
        what: what is being chosen, in the user's words, such as "sampler".

    Raises:
        UserError: `name` is not in the table; the sentence lists what is.
    """
    if name in table:
        return table[name]
    close = get_close_matches(name, table, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"unknown {what} {name!r}; {hint}choose one of {', '.join(sorted(table))}")
