"""Defines the result of a check. An error that a check raises becomes a result too."""

import dataclasses
from collections.abc import Callable

from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Finding:
    """Says what one check found.

    Attributes:
        subject: what was examined, such as "jax" or "checkpoint 200".
        said: what was found, as one line.
        remedy: what to do about it; "" if nothing is wrong.
        is_wrong: True for a fault, False for a remark that needs no action.
    """

    subject: str
    said: str
    remedy: str = ""
    is_wrong: bool = False

    def __str__(self) -> str:
        mark = "WRONG" if self.is_wrong else "ok"
        more = f"; {self.remedy}" if self.remedy else ""
        return f"{mark:5}  {self.subject:14}  {self.said}{more}"


def wrong(subject: str, said: str, remedy: str = "") -> Finding:
    """Returns a finding about something that is wrong."""
    return Finding(subject, said, remedy, is_wrong=True)


def checked(subject: str, check: Callable[[], str], remedy: str = "") -> Finding:
    """Runs a check and returns what it found.

    Args:
        subject: what the check examines, such as "video".
        check: function that returns one line about the subject. It raises UserError if the subject
            has a fault.
        remedy: what the user can do about a fault; "" if the error itself says what to do.
    """
    try:
        return Finding(subject, check())
    except UserError as error:
        return wrong(subject, str(error), remedy)
