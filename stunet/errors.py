"""Defines the exception for mistakes that users can correct, and suggests what they meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

# Two words are taken for one another from this share of equal letters on. Lower shares take "init"
# for "inpaint" and "eta" for "beta1".
_ALIKE = 0.76


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
        UserError: `name` is not in the table. The sentence lists the choices.
    """
    if name in table:
        return table[name]
    nearest = closest(name, table)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    raise UserError(f"unknown {what} {name!r}; {hint}choose one of {', '.join(sorted(table))}")


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """Returns a candidate that is spelt almost like `word`, or None if no candidate is."""
    candidates = list(candidates)
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=_ALIKE)
    # In short words, two letters in the wrong order leave too few in place: "fdv" for "fvd".
    found += [candidate for candidate in candidates if sorted(candidate) == sorted(word)]
    return found[0] if found else None
