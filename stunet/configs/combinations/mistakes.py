"""Sentences about values that do not fit together."""

from collections.abc import Iterator

Mistakes = Iterator[str]


def divides(value: int, key: str, by: int, why: str) -> Mistakes:
    """Yields a mistake if the `value` of `key` is no multiple of `by`. `why` says what `by` is."""
    if value % by:
        nearest = max(by, round(value / by) * by)
        yield f"{key} is {value}; it must be a multiple of {by} ({why}): try {nearest}"
