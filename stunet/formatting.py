"""Writes values for people to read."""

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Returns a duration such as "42 s", "3 min 05 s" or "2 h 07 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Returns a list of names such as "a, b, c and 21 more"."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(number: int, noun: str) -> str:
    """Returns a number of things, such as "1 shot" or "2,000 shots"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
