"""Checks that a path from the user is no address such as gs://bucket/run."""

import os
import pathlib
import re

from stunet.errors import UserError

# RFC 3986, section 3.1, with an authority. A name with a colon, such as a:b.mp4, has no scheme.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def has_scheme(text: str) -> bool:
    """Returns whether `text` is an address such as gs://bucket/run instead of a path."""
    return _SCHEME.match(text) is not None


def local(text: str) -> pathlib.Path:
    """Returns the path in `text`, after `check`."""
    check(text)
    return pathlib.Path(text)


def check(path: str | os.PathLike) -> None:
    """Checks that a text is a path on this machine.

    pathlib would read gs://bucket/run as a path below a directory named "gs:".

    Raises:
        UserError: the text is an address with a scheme, or holds a null character.
    """
    text = os.fspath(path)
    if has_scheme(text):
        raise UserError(
            f"{text!r} is an address, and only paths of this machine can be opened; mount what "
            "lies there, or copy it, and give its path"
        )
    if "\0" in text:
        raise UserError(f"{text!r} is no path: it holds a null character")
