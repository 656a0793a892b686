"""Safetensors files: which are read, and with which permissions they are written."""

import os
import pathlib
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file

import stunet
from stunet import tensorfiles
from stunet.errors import UserError
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


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["model.fp16.safetensors"], "model.fp16.safetensors"),
        (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["model.non_ema.safetensors", "other.fp16.safetensors"], "model.non_ema.safetensors"),
    ],
)
def test_a_single_variant_is_read_and_the_plain_file_comes_first(tmp_path, files, chosen):
    for name in files:
        tensorfiles.write(tmp_path / name, {"a": np.arange(3, dtype=np.float16)})
    assert tensorfiles.locate(tmp_path, "model") == {"a": tmp_path / chosen}


def test_shards_of_a_variant_are_read(tmp_path):
    index = '{"weight_map": {"a": "model-00001-of-00001.fp16.safetensors"}}'
    (tmp_path / "model.safetensors.index.fp16.json").write_text(index)
    expected = {"a": tmp_path / "model-00001-of-00001.fp16.safetensors"}
    assert tensorfiles.locate(tmp_path, "model") == expected


def test_several_variants_are_named_and_pickles_are_told_of_alone(tmp_path):
    with pytest.raises(UserError, match=r"neither model\.safetensors nor .* pickled weights"):
        tensorfiles.locate(tmp_path, "model")
    for variant in ("fp16", "bf16"):
        (tmp_path / f"model.{variant}.safetensors").touch()
    with pytest.raises(UserError, match="variants bf16, fp16; leave one"):
        tensorfiles.locate(tmp_path, "model")


def test_a_tensor_at_the_beginning_of_a_file_is_read_without_the_rest(tmp_path):
    headers = {"few": tensorfiles.Header("I32", (3,)), "many": tensorfiles.Header("F32", (5, 2))}
    file = tmp_path / "two.safetensors"
    with tensorfiles.Writer(file, headers) as writer:
        writer.add("few", np.array([3, 1, 2]))
        writer.add("many", np.zeros((5, 2)))
    with file.open("rb") as stream:
        found, few = tensorfiles.read_from(stream, "few")
        assert stream.tell() == file.stat().st_size - 40
    assert (found, few.tolist()) == (headers, [3, 1, 2])
    for content in (
        b"",
        b"\xff" * 20,
        (5).to_bytes(8, "little") + b"{}   ",
        file.read_bytes()[:90],
    ):
        (tmp_path / "damaged").write_bytes(content)
        with (tmp_path / "damaged").open("rb") as stream, pytest.raises(ValueError):  # noqa: PT011
            tensorfiles.read_from(stream, "few")
