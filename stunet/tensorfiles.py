"""Reads and writes tensors in safetensors files.

The files are laid out as Hugging Face's `save_pretrained` does it: one file, or shards with an
index, beside a config.json. Files are mapped into memory, so reading a part of a tensor reads only
that part of the file.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import ml_dtypes
import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stunet import jsonfiles
from stunet.errors import UserError

# Floating-point types, by the name that the format has for them.
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Types that a `Writer` writes: also counts, beside floating-point numbers.
_WRITTEN = DTYPES | {"I32": np.dtype(np.int32)}
# The limit of the format's own reader, in bytes.
_LONGEST_HEADER = 100_000_000


class Header(NamedTuple):
    """Holds the type and shape of a tensor, which can be read without the tensor's values.

    Attributes:
        dtype: name of the type in the safetensors format, such as "F32".
        shape: shape of the tensor.
    """

    dtype: str
    shape: tuple[int, ...]


class _Entry(msgspec.Struct, frozen=True):
    """Describes a tensor in the header of a file. Offsets count from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Index(TypedDict):
    """Holds the part of the index that is used: `weight_map`, the file name of each tensor."""

    weight_map: dict[str, str]


def locate(directory: Path, stem: str) -> dict[str, Path]:
    """Finds the file of each tensor in a directory.

    Args:
        directory: directory that holds STEM.safetensors, or shards and an index,
            STEM.safetensors.index.json. If it has neither, it may hold one variant, such as
            STEM.fp16.safetensors.
        stem: "model" in directories of transformers, "diffusion_pytorch_model" in those of
            diffusers.

    Raises:
        UserError: the directory holds no such file or index, the file or index is damaged, or the
            directory holds several variants.
    """
    single, index = _single_and_index(directory, stem)
    if index.is_file():
        shards = jsonfiles.read(index, _Index)["weight_map"]
        return {name: directory / shard for name, shard in shards.items()}
    if not single.is_file():
        raise UserError(
            f"{directory} has neither {single.name} nor {index.name}; pickled weights, as in "
            "pytorch_model.bin, are not read: save the model again with its library's "
            "save_pretrained"
        )
    return dict.fromkeys(headers(single), single)


def _single_and_index(directory: Path, stem: str) -> tuple[Path, Path]:
    """Returns the paths of the only file of a model and of the index of shards.

    One path or both may not exist. If neither STEM.safetensors nor STEM.safetensors.index.json
    exists, and there is one variant such as "fp16", the paths are those of the variant.

    Raises:
        UserError: neither of the two files exists, and there are several variants.
    """

    def places(variant: str) -> tuple[Path, Path]:
        name = f"{variant}." if variant else ""
        return (
            directory / f"{stem}.{name}safetensors",
            directory / f"{stem}.safetensors.index.{name}json",
        )

    if any(path.is_file() for path in places("")):
        return places("")
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    pattern = rf"{re.escape(stem)}\.(?:(\w+)\.safetensors|safetensors\.index\.(\w+)\.json)"
    found = (re.fullmatch(pattern, name) for name in names)
    variants = sorted({match[1] or match[2] for match in found if match})
    if len(variants) > 1:
        raise UserError(
            f"{directory} holds its weights in the variants {', '.join(variants)}; leave one of "
            f"them there, or add {stem}.safetensors"
        )
    return places(variants[0] if variants else "")


def headers(file: Path) -> dict[str, Header]:
    """Reads the header of each tensor in a file.

    Raises:
        UserError: the file is missing or damaged, for example cut off.
    """
    with _opened(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {n: Header(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}


def metadata(file: Path) -> dict[str, str]:
    """Reads the texts in a file's header, by name.

    Raises:
        UserError: the file is missing or damaged, for example cut off.
    """
    with _opened(file) as opened:
        return dict(opened.metadata() or {})


def check(expected: Mapping[str, Header], found: Mapping[str, Header], place: str) -> None:
    """Checks that the tensors `found` in files are exactly those that a network needs.

    Args:
        expected: header of each tensor of the network, whose types do not matter.
        found: header of each tensor in the files.
        place: directory of the files, for messages.

    Raises:
        UserError: a tensor is missing, unknown, of another shape, or not of floating-point numbers.
            The message names the first such tensor.
    """
    for name, (dtype, shape) in sorted(found.items()):
        if name not in expected:
            raise UserError(
                f"{place} has the weight {name!r} of shape {shape}, which the network of its "
                "config.json does not have"
            )
        if shape != expected[name].shape:
            raise UserError(
                f"{name!r} in {place} has the shape {shape} where its config.json says "
                f"{expected[name].shape}; the files belong to another network"
            )
        if dtype not in DTYPES:
            raise UserError(
                f"{name!r} in {place} is of the type {dtype}; weights of the types "
                f"{', '.join(DTYPES)} can be read"
            )
    for name, header in sorted(expected.items()):
        if name not in found:
            raise UserError(
                f"{place} has no weight {name!r} of shape {header.shape}, which its config.json "
                "asks for"
            )


@contextlib.contextmanager
def tensor(file: Path, name: str) -> Iterator[Any]:
    """Context manager that opens a tensor; `tensor[index]` reads parts of it as NumPy arrays.

    Raises:
        UserError: the file is missing or damaged, for example cut off.
    """
    with _opened(file) as opened:
        yield opened.get_slice(name)


def read_from(stream: BinaryIO, name: str) -> tuple[dict[str, Header], np.ndarray]:
    """Reads the headers of all tensors, and one tensor, from an open file that may not be mapped.

    Only the bytes that are needed are read, so the file may be an object of a bucket.

    Raises:
        ValueError: the file is damaged, or holds no such tensor.
    """
    size = int.from_bytes(stream.read(8), "little")
    if size > _LONGEST_HEADER:
        raise ValueError(f"its header has {size:,} bytes")
    place = "its header"
    try:
        header = jsonfiles.parse(stream.read(size), dict[str, object], place)
        header.pop("__metadata__", None)
        entries = jsonfiles.convert(header, dict[str, _Entry], place)
    except UserError as error:
        raise ValueError(str(error)) from error
    try:
        found = entries[name]
        begin, end = found.data_offsets
        stream.seek(8 + size + begin)
        values = np.frombuffer(stream.read(end - begin), _WRITTEN[found.dtype])
        array = values.reshape(found.shape)
    except KeyError as error:
        raise ValueError(f"{place} is damaged: {error}") from error
    return {key: Header(one.dtype, one.shape) for key, one in entries.items()}, array


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        if not file.is_file():
            raise UserError(f"{file} is missing, which holds a part of the weights")
        with safe_open(file, framework="numpy") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged ({error})") from error


def write(
    file: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors that are all in memory to a safetensors file.

    The file gets the permissions that the user's umask asks for. The `save_file` of safetensors
    alone would give the file the permissions 0600, whatever the umask.

    Args:
        file: path of the file. Other processes may see the file before it is complete.
        tensors: contiguous arrays by name.
        metadata: texts by name, to store in the file's header.
    """
    file.touch()
    permissions = file.stat().st_mode
    save_file(dict(tensors), file, metadata and dict(metadata))
    file.chmod(permissions)


class Writer:
    """Writes a safetensors file tensor by tensor, or in parts of a tensor.

    Only one tensor or part needs to be in memory at a time.

    Args:
        file: file to write. Other processes may see the file before it is complete, unless the
            caller prevents this.
        tensors: header of each tensor by name, in the order in which `add` will be called.
    """

    def __init__(self, file: Path, tensors: Mapping[str, Header]):
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, (dtype, shape) in tensors.items():
            begin, end = end, end + math.prod(shape) * _WRITTEN[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        # The data begin at a multiple of 8 bytes.
        text += b" " * (-len(text) % 8)
        self._expected = iter(tensors.items())
        self._file = file.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, *_) -> None:
        self._file.close()
        if kind is None and (missing := next(self._expected, None)):
            raise ValueError(f"{missing[0]} was not written")

    def add(self, name: str, value: np.ndarray) -> None:
        """Writes the next tensor, in the type that its header says."""
        self.add_parts(name, [value])

    def add_parts(self, name: str, parts: Iterable[np.ndarray]) -> None:
        """Writes the next tensor from parts, which follow each other along its first axis."""
        expected, (dtype, shape) = next(self._expected)
        count = 0
        for part in parts:
            if (name, part.shape[1:]) != (expected, shape[1:]):
                raise ValueError(f"{name} of {part.shape} is not {expected} of {shape}")
            count += part.size
            part = np.ascontiguousarray(part, _WRITTEN[dtype].newbyteorder("<"))
            self._file.write(part.reshape(-1).view(np.uint8))
        if count != math.prod(shape):
            raise ValueError(f"{name} has {count} elements, and its shape is {shape}")
