"""Arrays of a pickle are read exactly, and nothing in a pickle ever runs."""

import os
import pickle

import numpy as np
import pytest

from stunet.errors import UserError
from stunet.evaluate.pickled import read_arrays


class Runs:
    """An object that calls a function when it is unpickled."""

    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


def test_arrays_are_read_as_they_were_written():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 1, 2)).astype("f4"), np.arange(300, dtype="f4")
    tree = {"params": {"a/b": {"kernel": kernel, "bias": bias}, "c": bias}, "empty": {}}
    found = read_arrays(pickle.dumps(tree, protocol=4))
    assert set(found) == {"params/a/b/kernel", "params/a/b/bias", "params/c"}
    np.testing.assert_array_equal(found["params/a/b/kernel"], kernel)
    # The pickle holds this array once and refers to it twice.
    np.testing.assert_array_equal(found["params/c"], bias)


def test_nothing_is_called(tmp_path):
    trace = tmp_path / "ran"
    for call, arguments in (
        (os.system, (f"touch {trace}",)),
        (eval, (f"open({str(trace)!r}, 'w')",)),
        (np.load, (str(trace),)),
        (np.frombuffer, (b"1234",)),
        (np.ndarray, ((1,),)),
        (np.dtype, ("O",)),
    ):
        content = pickle.dumps({"params": {"kernel": Runs(call, *arguments)}}, protocol=4)
        with pytest.raises(UserError, match=r"the pickle holds .*, and is not read"):
            read_arrays(content)
    assert not trace.exists()
    # Attacks may use an older instruction, or hide among good arrays or in an array's state.
    good = pickle.dumps({"a": np.zeros(2, "f4")}, protocol=4)
    for evil in (
        b"\x80\x04cos\nsystem\n(Vtouch " + str(trace).encode() + b"\ntR.",
        b"\x80\x04(Vtouch " + str(trace).encode() + b"\nios\nsystem\n.",
        good.replace(b"_reconstruct", b"scalar______"),
        good.replace(b"\x8c\x05numpy", b"\x8c\x05posix").replace(b"ndarray", b"unlink_"),
    ):
        with pytest.raises(UserError, match="not read"):
            read_arrays(evil)
    assert not trace.exists()


@pytest.mark.parametrize(
    "tree",
    [
        {"a": np.zeros(2, "f8")},
        {"a": np.zeros(2, ">f4")},
        {"a": np.asfortranarray(np.zeros((2, 3), "f4"))},
        {"a": np.array([None])},
        {"a": [np.zeros(2, "f4")]},
        {"a": "text"},
        {1: np.zeros(2, "f4")},
        np.zeros(2, "f4"),
        (),
    ],
    ids=str,
)
def test_anything_but_float32_arrays_in_dicts_is_refused(tree):
    with pytest.raises(UserError, match="not read"):
        read_arrays(pickle.dumps(tree, protocol=4))


def test_damaged_pickles_are_refused():
    content = pickle.dumps({"a": {"b": np.arange(3, dtype="f4")}}, protocol=4)
    for length in range(len(content)):
        with pytest.raises(UserError, match="not read"):
            read_arrays(content[:length])
    # Changing any single byte gives arrays or a UserError, and no other error.
    for place in range(len(content)):
        for value in (0, 46, 0x81, 0x93, 255):
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            try:
                found = read_arrays(changed)
            except UserError:
                continue
            assert all(array.dtype == np.float32 for array in found.values())
    # This dictionary contains itself.
    with pytest.raises(UserError, match="not read"):
        read_arrays(b"\x80\x04}\x94\x8c\x01ah\x00s.")
