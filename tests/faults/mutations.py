"""Changes files as damage does, or as someone does who attacks their reader."""

import json
import os
import pathlib
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from typing import Any

# Values of JSON that a reader may not expect, as they stand in a file.
_NASTY = (
    *("null", "true", "false", "-1", "0", "1", "0.5", "-0.0", "1e308", "1e999", "NaN", "-Infinity"),
    *("9" * 400, '""', '"x"', '"nan"', '"\\ud800"', '"\\u0000"', '"../../.."', '"/"', '"\N{BOM}"'),
    *("[]", "{}", "[[]]", "[null]", '{"a": {}}', '"' + "x" * 100_000 + '"', "2147483648"),
    *("[" * 2_000 + "]" * 2_000, '{"a":' * 2_000 + "1" + "}" * 2_000),
)
# Bytes that a reader of text may not expect: no UTF-8, a mark of byte order, half a surrogate.
_WORDS = (
    *(b"\xff", b"\x00", b"\xc3", b"\r", b'"', b"\n\n", b"{"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80"),
)
# Words of a binary file that a reader may take for a size.
_SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip_bits(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 4, 64)) if data else 0):
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def truncate(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data) + 1)]


def empty(data: bytes, generator: random.Random) -> bytes:
    return b""


def overwrite(data: bytes, generator: random.Random) -> bytes:
    first, last = _range(data, generator)
    fill = generator.choice((bytes, b"\xff".__mul__, generator.randbytes))
    return data[:first] + fill(last - first) + data[last:]


def cut_out(data: bytes, generator: random.Random) -> bytes:
    first, last = _range(data, generator)
    return data[:first] + data[last:]


def repeat(data: bytes, generator: random.Random) -> bytes:
    first, last = _range(data, generator)
    return data[:last] + data[first:last] * generator.choice((1, 3)) + data[last:]


def insert(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data) + 1)
    words = (
        b"\xff",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\xc3",
        b"\r",
        b'"',
        b"\n\n",
        b"{",
        b"\xed\xa0\x80",
    )
    return data[:place] + generator.choice(words) + data[place:]


def resize(data: bytes, generator: random.Random) -> bytes:
    """Changes a word that may be a size."""
    word = generator.choice(_SIZES)
    packed = struct.pack(generator.choice("<>") + ("I" if word > 0xFFFF else "H"), word)
    # Sizes are near the beginning of a file or of its parts.
    end = generator.choice((64, 256, len(data)))
    place = generator.randrange(max(1, min(end, len(data) - len(packed))))
    return data[:place] + packed + data[place + len(packed) :]


def change_line(data: bytes, generator: random.Random) -> bytes:
    """Changes a line of text: drops it, doubles it, moves it, or changes a field."""
    lines = data.split(b"\n")
    here, there = (generator.randrange(len(lines)) for _ in range(2))
    change = generator.randrange(4)
    if change == 0:
        del lines[here]
    elif change == 1:
        lines.insert(there, lines[here])
    elif change == 2:
        lines[here], lines[there] = lines[there], lines[here]
    else:
        fields = lines[here].split(b",")
        fields[generator.randrange(len(fields))] = generator.choice(
            (b"", b'"', b"x" * 200_000, b"\xff\xfe", b"../../etc/passwd", b"a\x00b", b"=1+1", b"~")
        )
        lines[here] = b",".join(fields)
    return b"\n".join(lines)


def change_json(data: bytes, generator: random.Random) -> bytes:
    """Changes one value of a JSON document, or of one line of a file of such lines."""
    text = data.decode()
    try:
        json.loads(text)
        lines, here = [text], 0
    except ValueError:
        lines = text.splitlines(keepends=True)
        here = generator.randrange(len(lines))
    lines[here] = _change_document(json.loads(lines[here]), generator) + "\n"
    return "".join(lines).encode(errors="surrogatepass")


def _change_document(document: Any, generator: random.Random) -> str:
    places = list(_places(document))
    mark = "@@ here @@"
    nasty = generator.choice(_NASTY)
    if not places or generator.random() < 0.05:
        return nasty
    holder, key = generator.choice(places)
    change = generator.random()
    if change < 0.7:
        holder[key] = mark
    elif change < 0.85:
        del holder[key]
    elif isinstance(holder, dict):
        holder[mark] = holder.pop(key)
        return json.dumps(document).replace(
            json.dumps(mark), generator.choice(('"x"', '""', '"0"'))
        )
    else:
        holder.insert(key, mark)
    return json.dumps(document).replace(json.dumps(mark), nasty)


def _places(node: Any):
    """Yields each dict or list with each of its keys."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


def change_header(data: bytes, generator: random.Random) -> bytes:
    """Changes the JSON header of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    header = change_json(data[8 : 8 + size], generator)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def change_png(data: bytes, generator: random.Random) -> bytes:
    """Changes the header of a PNG file, whose checksum stays right."""
    header = bytearray(data[16:29])
    if generator.random() < 0.5:
        side = generator.choice((0, 1, 7, 4_000, 20_000, 70_000, 0x7FFFFFFF, 0xFFFFFFFF))
        place = generator.choice((0, 4))
        header[place : place + 4] = struct.pack(">I", side)
        if generator.random() < 0.5:
            header[:8] = struct.pack(">II", side, side)
    else:
        header[generator.randrange(8, 13)] = generator.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return data[:16] + header + checksum + data[33:]


def _range(data: bytes, generator: random.Random) -> tuple[int, int]:
    first = generator.randrange(len(data) + 1)
    return first, min(len(data), first + generator.choice((1, 4, 16, 256, 4096)))


Change = Callable[[bytes, random.Random], bytes]
BYTES: tuple[Change, ...] = (
    *(flip_bits, truncate, empty, overwrite, cut_out, repeat, insert, resize),
)
# The changes that a kind of file can have beside `BYTES`, which are tried as often together as each
# of these.
SPECIAL: dict[str, tuple[Change, ...]] = {
    "bytes": (),
    "json": (change_json, change_json, change_json),
    "text": (change_line, change_line),
    "safetensors": (change_header, change_header),
    "png": (change_png,),
}


def remove(path: pathlib.Path) -> None:
    path.unlink()


def make_directory(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: pathlib.Path) -> None:
    """Puts a named pipe at the path, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def link_to_device(path: pathlib.Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def replace_directory(path: pathlib.Path) -> None:
    """Puts a file in the place of the directory that holds the file."""
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"x")


PLACES: tuple[Callable[[pathlib.Path], None], ...] = (
    *(remove, make_directory, make_pipe, link_to_itself, link_to_nothing, link_to_device),
)


def mutate(path: pathlib.Path, kind: str, generator: random.Random) -> str:
    """Changes the file at `path`. Returns what was done."""
    if generator.random() < 0.08:
        place = generator.choice(PLACES)
        place(path)
        return place.__name__
    special = SPECIAL[kind]
    change = generator.choice((*special, None))
    change = generator.choice(BYTES) if change is None else change
    path.write_bytes(change(path.read_bytes(), generator))
    return change.__name__
