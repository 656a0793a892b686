"""Safetensors files are written with the permissions that the user asked for."""

import os
import pathlib
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file

import stunet
from stunet import tensorfiles
from stunet.files import atomic


@pytest.fixture(params=[0o022, 0o027], ids=["readable by all", "readable by the group"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_has_the_permissions_of_the_umask(tmp_path, umask):
    file, arrays = tmp_path / "a.safetensors", {"a": np.arange(3.0)}
    for _ in range(2):  # The second time, the file is there already.
        with atomic(file) as partial:
            tensorfiles.write(partial, arrays, {"said": "so"})
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    np.testing.assert_array_equal(load_file(file)["a"], arrays["a"])


def test_the_room_writes_all_safetensors_files_itself():
    """`save_file` of safetensors leaves 0600, so one function calls it, and mends that."""
    package = pathlib.Path(stunet.__file__).parent
    callers = [f for f in package.rglob("*.py") if "save_file(" in f.read_text()]
    assert callers == [package / "tensorfiles.py"]
