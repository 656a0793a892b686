"""Reads the arrays of a pickle as data. Nothing in the pickle is imported, called or run.

A pickle is a program, and `pickle.load` runs it. This module lists the instructions with
`pickletools.genops`. It interprets only the few instructions that write a tree of arrays. Any other
instruction is refused, and so is any name that does not belong to NumPy's arrays.
"""

import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from stunet.errors import UserError


class _Name(NamedTuple):
    """Stands for a name that a pickle wants to call. The name is never looked up."""

    name: str


class _Dtype(NamedTuple):
    """Stands for a data type of NumPy, by its code."""

    dtype: str


class _Array:
    """Stands for an array whose contents follow later in the pickle."""

    value: np.ndarray | None = None


_MARK = object()

# Names that pickles of arrays contain, before and since NumPy 2.
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Name("array"),
    ("numpy._core.multiarray", "_reconstruct"): _Name("array"),
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
}


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Reads float32 arrays from the nested dictionaries of a pickle.

    Args:
        content: a pickle of protocol 4.

    Returns:
        The arrays, which are read-only. The keys that lead to an array, joined by slashes, are its
        name.

    Raises:
        UserError: the pickle holds anything but arrays in dictionaries, or it is damaged.
    """
    try:
        return dict(_flatten(_Reader().read(content)))
    except _Refused as error:
        raise UserError(f"the pickle holds {error}, and is not read") from error
    # Raised by `genops`, and by instructions whose operands are missing.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"the pickle is damaged ({error}), and is not read") from error


class _Refused(Exception):
    """Raised if a pickle holds something that this module refuses to read.

    The message names what was refused.
    """


class _Reader:
    """Interprets the instructions of a pickle on a stack, and cannot call anything."""

    def __init__(self):
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    def read(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "STOP":
                (tree,) = self._stack
                return tree
            if opcode.name not in _MEANINGS:
                raise _Refused(f"the instruction {opcode.name}")
            _MEANINGS[opcode.name](self, argument)
        raise ValueError("it has no STOP instruction")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def memoize(self, _) -> None:
        self._memo.append(self._stack[-1])

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count:
            raise ValueError("a tuple lacks items")
        del self._stack[-count:]
        self.push(items)

    def tuple_since_mark(self, _) -> None:
        self.push(tuple(self._since_mark()))

    def set_item(self, _) -> None:
        self._update([self._stack.pop(-2), self._stack.pop()])

    def set_items(self, _) -> None:
        self._update(self._since_mark())

    def name(self, _) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if (module, name) not in _NAMES:
            raise _Refused(f"the name {module}.{name}")
        self.push(_NAMES[module, name])

    def make(self, _) -> None:
        arguments, maker = self._stack.pop(), self._stack.pop()
        if maker == _Name("array") and arguments == (_Name("ndarray"), (0,), b"b"):
            self.push(_Array())
        elif maker == _Name("dtype") and arguments == ("f4", False, True):
            self.push(_Dtype("f4"))
        else:
            raise _Refused("something that is not an array of float32")

    def build(self, _) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if isinstance(made, _Dtype):
            if state != (3, "<", None, None, None, -1, -1, 0):
                raise _Refused("numbers that are not little-endian float32")
        elif isinstance(made, _Array) and made.value is None:
            made.value = _array(state)
        else:
            raise _Refused("contents of something that is not a new array")

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise _Refused("items of something that is not a dictionary")
        target |= zip(items[::2], items[1::2], strict=True)


def _array(state: Any) -> np.ndarray:
    """Returns the array that `state`, in NumPy's form for pickles, describes."""
    version, shape, dtype, is_fortran, content = state
    if (version, dtype, is_fortran) != (1, _Dtype("f4"), False) or not isinstance(content, bytes):
        raise _Refused("an array that is not of float32, row by row")
    if not all(isinstance(extent, int) and extent >= 0 for extent in shape):
        raise ValueError(f"an array has the shape {shape}")
    if len(content) != 4 * math.prod(shape):
        raise ValueError(f"an array of shape {shape} has {len(content)} bytes")
    return np.frombuffer(content, "<f4").reshape(shape)


def _flatten(tree: Any, path: tuple[str, ...] = ()):
    """Yields (name, array) for all arrays in nested dictionaries."""
    if isinstance(tree, _Array) and tree.value is not None and path:
        yield "/".join(path), tree.value
    elif isinstance(tree, dict) and len(path) < 16:
        for key, value in tree.items():
            if not isinstance(key, str):
                raise _Refused("a key that is not text")
            yield from _flatten(value, (*path, key))
    else:
        raise _Refused("something that is not an array")


def _push(value: Callable[[], Any] | None = None) -> Callable[[_Reader, Any], None]:
    """Returns an instruction that pushes `value()`, or its own argument if `value` is None."""
    return lambda reader, argument: reader.push(value() if value else argument)


def _tuple(count: int) -> Callable[[_Reader, Any], None]:
    return lambda reader, _: reader.tuple_of(count)


_MEANINGS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": lambda reader, version: None,
    "FRAME": lambda reader, length: None,
    "MARK": _push(lambda: _MARK),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), _push()),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE"), _push()),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES"), _push()),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": _Reader.tuple_since_mark,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "MEMOIZE": _Reader.memoize,
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Reader.get),
    "STACK_GLOBAL": _Reader.name,
    "REDUCE": _Reader.make,
    "BUILD": _Reader.build,
}
