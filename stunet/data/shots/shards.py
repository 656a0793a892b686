"""Reads records of many ArrayRecord files at random, with a bounded number of open files."""

import collections
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from array_record.python import array_record_module

from stunet.errors import UserError

# Files that are kept open. Every system allows 1,024 open files, and opening one takes 0.1 ms.
_MOST_OPEN = 256


class Shards:
    """Gives random access to the records of ArrayRecord files. Several threads may read at once."""

    def __init__(self, files: Sequence[Path], sizes: Sequence[int] | None = None):
        """Checks that the files exist and have the expected sizes in bytes.

        Raises:
            UserError: a file is missing, or has another size.
        """
        self._files = list(files)
        self._readers: collections.OrderedDict = collections.OrderedDict()
        self._lock = threading.Lock()

        def check(file: Path, size: int | None) -> None:
            try:
                found = os.stat(file).st_size
            except FileNotFoundError:
                raise UserError(f"{file} is missing; copy it again or prepare it again") from None
            if size not in (None, found):
                raise UserError(
                    f"{file} is damaged or cut short: it has {found:,} of {size:,} bytes; copy it "
                    "again or prepare it again"
                )

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(check, self._files, sizes or [None] * len(self._files)))

    def read(self, shard: int, number: int) -> bytes:
        """Returns one record of a file.

        Raises:
            UserError: the record is damaged.
        """
        try:
            return self._reader(shard).read([number])[0]
        except (RuntimeError, IndexError, ValueError) as error:
            raise self.damaged(shard, number, error) from error

    def damaged(self, shard: int, number: int, reason: object) -> UserError:
        """Returns the error to raise for a record that cannot be understood."""
        return UserError(
            f"record {number} of {self._files[shard]} is damaged ({reason}); copy the file again, "
            "or remove it and run the same `stunet prepare` again"
        )

    def _reader(self, shard: int):
        with self._lock:
            reader = self._readers.get(shard)
            if reader is None:
                options = "readahead_buffer_size:0,max_parallelism:0"
                reader = self._readers[shard] = array_record_module.ArrayRecordReader(
                    str(self._files[shard]), options, file_reader_buffer_size=32768
                )
            self._readers.move_to_end(shard)
            # A reader closes when the last thread that reads with it lets go of it.
            if len(self._readers) > _MOST_OPEN:
                self._readers.popitem(last=False)
        return reader

    def __getstate__(self):
        return self._files

    def __setstate__(self, files):
        self.__init__(files)
