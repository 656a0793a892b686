"""Records are read by ranges of bytes as ArrayRecord reads them from the whole file."""

import numpy as np
import pytest
from array_record.python import array_record_module

from stunet.data.shots.ranges import RangeReader
from stunet.stores import objects

_ADDRESS = "s3://bucket/a.array_record"


@pytest.fixture
def fetched(monkeypatch):
    """The ranges that are read of a file, by a stand-in for a bucket. Its item "file" names it."""
    found = {"ranges": []}

    def read_part(address, begin, size):
        found["ranges"].append((begin, size))
        return found["file"].read_bytes()[begin : begin + size]

    monkeypatch.setattr(objects, "read_part", read_part)
    return found


def write(file, records, options="group_size:1,uncompressed"):
    writer = array_record_module.ArrayRecordWriter(str(file), options)
    for record in records:
        writer.write(record)
    writer.close()


# Sizes around the blocks of 64 KiB; and so many records that their places fill several blocks.
@pytest.mark.parametrize(
    "sizes",
    [(), (0, 1), (65_000, 65_536, 400_000, 7), (65_536 - 24 - 40 - 5, 1), (9,) * 20_000],
)
def test_records_are_those_of_array_record(sizes, fetched, tmp_path):
    rng = np.random.default_rng(0)
    records = [rng.bytes(size) for size in sizes]
    fetched["file"] = file = tmp_path / "a"
    write(file, records)
    reader = RangeReader(_ADDRESS, file.stat().st_size)
    for number in range(0, len(records), max(1, len(records) // 5)):
        fetched["ranges"].clear()
        assert reader.read([number]) == [records[number]]
        ((_, size),) = fetched["ranges"]
        # A chunk has a header of 40 bytes, and each of its blocks one of 24.
        assert size <= len(records[number]) + 40 + 24 * (2 + len(records[number]) // 65_536) + 10
    with pytest.raises(IndexError):
        reader.read([len(records)])


def test_what_is_damaged_or_laid_out_otherwise_is_noticed(fetched, tmp_path):
    fetched["file"] = file = tmp_path / "a"
    records = [bytes([number]) * 1000 for number in range(40)]
    for options in ("group_size:1", "group_size:1,brotli:6"):
        write(file, records, options)
        with pytest.raises(ValueError, match="compressed"):
            RangeReader(_ADDRESS, file.stat().st_size)
    write(file, records, "group_size:4,uncompressed")
    with pytest.raises(ValueError, match="one by one"):
        RangeReader(_ADDRESS, file.stat().st_size).read([1])
    write(file, records)
    good = file.read_bytes()
    for size in (0, 1000, 70_000):
        file.write_bytes(good[:size])
        with pytest.raises(ValueError):  # noqa: PT011
            RangeReader(_ADDRESS, size)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 300).tolist():
        file.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            found = RangeReader(_ADDRESS, len(good)).read(range(40))
        except (ValueError, RuntimeError, IndexError):
            continue
        assert found == records, place  # Most of the file pads it to whole blocks.
