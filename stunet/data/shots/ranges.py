"""Reads records of an ArrayRecord file in a bucket, and fetches the bytes of those records alone.

ArrayRecord's own reader takes paths and gs:// addresses. Here the place of each record is read from
the end of the file. The bytes of a record are then written to their place in an empty file of the
same size, which ArrayRecord reads, with all its checks.

The layout is that of array_record 1 (github.com/google/array_record, cpp/layout.proto) in chunks of
Riegeli (github.com/google/riegeli, doc/riegeli_records_file_format.md).
"""

import itertools
import tempfile
from collections.abc import Sequence

import numpy as np
from array_record.python import array_record_module

from stunet.stores import objects

# A file consists of blocks, each with a header. The last block holds the place of the footer.
_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 2**16, 24, 40
# Bytes that are read first: of the last block, whose rest is padding, and before it.
_OF_LAST, _BEFORE_LAST = 256, 8192
_SIMPLE, _UNCOMPRESSED = b"r", 0
# The tag of the first field of a protocol buffer, if that is an integer.
_FIRST_INTEGER = 0x08


class RangeReader:
    """Gives random access to the records of one file. Several threads may read at once."""

    def __init__(self, address: str, size: int):
        """Reads where the records are.

        Args:
            address: address of the file.
            size: number of bytes of the file.

        Raises:
            ValueError: the file is damaged, or laid out in another way, such as compressed.
            UserError: the bucket cannot be read.
        """
        self._address, self._size = address, size
        last = size - _BLOCK
        if last < _BLOCK:
            raise ValueError(f"it has {size:,} bytes, too few for an ArrayRecord file")
        begin = last - _BEFORE_LAST
        tail = objects.read_part(address, begin, _BEFORE_LAST + _OF_LAST)
        footer = _first_field(_records(tail[_BEFORE_LAST:], last)[0])
        if not 0 <= footer < last:
            raise ValueError("its end is damaged")
        if footer < begin:
            tail = objects.read_part(address, footer, begin - footer) + tail
            begin = footer
        notes = _records(tail[footer - begin : last - begin], footer)
        # The first note is about the file, and each further one about a chunk of records.
        self._places = np.array([*map(_first_field, notes[1:]), footer], np.int64)
        if not (np.diff(self._places) > 0).all():
            raise ValueError("its footer is damaged")
        self._footer, self._tail = footer, tail[footer - begin :]

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """Returns some records, each of which is a chunk of its own.

        Raises:
            IndexError: there is no such record.
            RuntimeError: a record is damaged.
            UserError: the bucket cannot be read.
        """
        return [self._read(number) for number in numbers]

    def _read(self, number: int) -> bytes:
        if not 0 <= number < len(self._places) - 1:
            raise IndexError(f"there are {len(self._places) - 1} records, and no number {number}")
        begin, end = self._places[number : number + 2].tolist()
        content = objects.read_part(self._address, begin, end - begin)
        with tempfile.NamedTemporaryFile(suffix=".array_record") as file:
            file.truncate(self._size)
            for place, some in ((begin, content), (self._footer, self._tail)):
                file.seek(place)
                file.write(some)
            file.flush()
            reader = whole_file(file.name)
            if reader.num_records() != len(self._places) - 1:
                raise ValueError("its records are not stored one by one")
            return reader.read([number])[0]


def whole_file(place: str) -> array_record_module.ArrayRecordReader:
    """Opens a file, at a path or at a gs:// address, with ArrayRecord's own reader."""
    return array_record_module.ArrayRecordReader(
        place, "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=32768
    )


def _records(content: bytes, place: int) -> list[bytes]:
    """Returns the records of a chunk.

    Args:
        content: bytes of the file, from the chunk's beginning to its end or further.
        place: where in the file the chunk begins.

    Raises:
        ValueError: the chunk is compressed, or damaged.
    """
    # Headers of blocks lie between the bytes of a chunk.
    starts = [0, *range(-place % _BLOCK or _BLOCK, len(content), _BLOCK)]
    skipped = [_BLOCK_HEADER if (place + start) % _BLOCK == 0 else 0 for start in starts]
    ends = [*starts[1:], len(content)]
    chunk = b"".join(
        content[start + skip : end] for start, skip, end in zip(starts, skipped, ends, strict=True)
    )
    header, data = chunk[:_CHUNK_HEADER], chunk[_CHUNK_HEADER:]
    data = data[: int.from_bytes(header[8:16], "little")]
    if header[24:25] != _SIMPLE or not data or data[0] != _UNCOMPRESSED:
        raise ValueError("it is compressed, or damaged")
    count = int.from_bytes(header[25:32], "little")
    length, begin = _integer(data, 1)
    end, sizes = begin + length, []
    while begin < end:
        size, begin = _integer(data, begin)
        sizes.append(size)
    places = [end, *(end + total for total in itertools.accumulate(sizes))]
    if len(sizes) != count or places[-1] != len(data):
        raise ValueError("a chunk of it is damaged")
    return [data[a:b] for a, b in itertools.pairwise(places)]


def _first_field(message: bytes) -> int:
    """Returns the first field of a protocol buffer, an integer."""
    if not message or message[0] != _FIRST_INTEGER:
        raise ValueError("its footer is damaged")
    return _integer(message, 1)[0]


def _integer(data: bytes, begin: int) -> tuple[int, int]:
    """Returns an integer of 7 bits a byte, the lowest first, and the place after it."""
    value = 0
    for shift, byte in enumerate(data[begin : begin + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, begin + shift + 1
    raise ValueError("a number in it is damaged")
