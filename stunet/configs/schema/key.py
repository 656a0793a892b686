"""A key of a config, with its documentation and its range."""

import dataclasses
from collections.abc import Callable
from typing import Any


def field(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: tuple | None = None,
    own: type | None = None,
    path: Callable[[Any], str] | None = None,
):
    """Returns a dataclass field that carries the documentation and the range of a key.

    Args:
        default: value of the key where an experiment sets none.
        doc: what the key means, in sentences that stand alone.
        least: smallest value allowed.
        above: every value must be larger than this.
        most: largest value allowed.
        below: every value must be smaller than this.
        choices: all values allowed.
        own: what a user's own object must have, a protocol of `stunet.extensions`, if the key may
            also name such an object ("package.module:name"). None if it may not.
        path: value -> the path in it, for a key whose value is or may hold one.
    """
    limits = dict(least=least, above=above, most=most, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=dict(doc=doc, own=own, path=path, **limits))
