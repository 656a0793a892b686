"""Errors of a disk become one sentence, whoever raises them."""

import errno
import os
import pathlib
import resource
import signal

import pytest

from stunet.errors import UserError
from stunet.files import full_disk_explained, refusal_explained, refusals_explained

SENTENCES = {
    errno.ENOSPC: "the disk that holds /run is full; .*: free some space and run",
    errno.EDQUOT: "your share of the disk that holds /run is full; .*: free some space and run",
    errno.EFBIG: "a file in /run becomes larger than a file may be; .*: raise the limit",
}


@pytest.mark.parametrize("number", SENTENCES)
@pytest.mark.parametrize("make", [OSError, lambda number, text: ValueError(f"INTERNAL: {text}")])
def test_a_disk_that_takes_no_more_is_told(number, make):
    with (
        pytest.raises(UserError, match=SENTENCES[number]),
        full_disk_explained(pathlib.Path("/run"), "nothing is lost"),
        # The sentence about a place that refuses files would be less precise.
        refusal_explained(pathlib.Path("/run"), "choose another"),
    ):
        raise make(number, os.strerror(number))


@pytest.mark.parametrize("number", SENTENCES)
def test_a_disk_that_takes_no_more_is_told_where_nobody_expected_it(number):
    with pytest.raises(UserError, match=r"the output.*run the same command"), refusals_explained():
        raise OSError(number, os.strerror(number))


def test_a_disk_that_cannot_be_read_is_not_taken_for_the_one_that_is_written():
    with (
        pytest.raises(UserError, match=r"^/videos/a\.mp4: Input/output error; .* check it"),
        refusals_explained(),
        full_disk_explained(pathlib.Path("/run"), "nothing is lost"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/videos/a.mp4")


def test_refusals_that_tensorstore_meets_are_told(tmp_path):
    import tensorstore

    (tmp_path / "file").touch()
    kvstore = {"driver": "file", "path": f"{tmp_path}/file/8.orbax-checkpoint-tmp/"}
    store = tensorstore.KvStore.open(kvstore).result()
    sentence = rf"^{tmp_path}/file/8: Not a directory; a file is in the place"
    with pytest.raises(UserError, match=sentence), refusals_explained():
        store.write("d", b"value").result()


def test_names_that_tensorstore_escapes_are_left_out():
    message = r"""Failed to create directory: "/run/8.orbax-checkpoint-tmp/d\x00\x66": """
    message += "Read-only file system [os_error_code='30']"
    with pytest.raises(UserError, match=r"^/run/8: Read-only file"), refusals_explained():
        raise ValueError(message)


def test_other_errors_stay_as_they_are():
    for error in [OSError(errno.EPIPE, os.strerror(errno.EPIPE)), ValueError("5")]:
        with (
            pytest.raises(type(error)) as raised,
            refusals_explained(),
            full_disk_explained(pathlib.Path("/run"), "nothing is lost"),
        ):
            raise error
        assert raised.value is error


def test_a_limit_on_the_size_of_files_is_told(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with (
            pytest.raises(UserError, match="becomes larger than a file may be; all is well"),
            full_disk_explained(tmp_path, "all is well"),
        ):
            (tmp_path / "a").write_bytes(bytes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
