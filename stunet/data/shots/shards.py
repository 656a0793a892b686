"""Reads records of many ArrayRecord files at random, with a bounded number of open files.

The files may be in a bucket (`stunet.stores.shelf`).
"""

import collections
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from array_record.python import array_record_module

from stunet.data.shots.ranges import RangeReader, whole_file
from stunet.errors import UserError
from stunet.stores.addresses import address
from stunet.stores.shelf import Shelf

# Files that are kept open. Every system allows 1,024 open files, and opening one takes 0.1 ms. One
# in a bucket takes no file, and opening it takes a request: in gs:// for its last 1 MiB, and in s3://
# for 8 KiB, of which a reader keeps about 10 bytes for each record.
_MOST_OPEN, _MOST_OPEN_IN_PLACE = 256, {"gs": 1024, "s3": 65_536}


Reader = array_record_module.ArrayRecordReader | RangeReader


class Shards:
    """Gives random access to the records of ArrayRecord files. Several threads may read at once."""

    def __init__(
        self, files: Sequence[Path], sizes: Sequence[int] | None = None, once: bool = False
    ):
        """Checks that the files exist and have the expected sizes in bytes.

        Args:
            files: the files, or the places that `stunet.stores.addresses.local` gives to files in
                one bucket.
            sizes: size of each file; None accepts any.
            once: True if few records are read, so that no whole file needs to be fetched.

        Raises:
            UserError: a file is missing, or has another size.
        """
        self._files, self._once = list(files), once
        self._shelf = Shelf(self._files, once) if any(map(address, self._files[:1])) else None
        self._readers: collections.OrderedDict[int, Reader] = collections.OrderedDict()
        self._most_open = _MOST_OPEN
        if self._shelf and self._shelf.in_place:
            self._most_open = _MOST_OPEN_IN_PLACE[address(self._files[0]).partition(":")[0]]
        self._lock = threading.Lock()

        def check(file: Path, size: int | None) -> None:
            try:
                found = self._shelf.sizes[file] if self._shelf else os.stat(file).st_size
            except (FileNotFoundError, KeyError):
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
            UserError: the record is damaged, or the bucket that holds the file cannot be read.
        """
        try:
            return self._reader(shard).read([number])[0]
        except (RuntimeError, IndexError, ValueError) as error:
            if self._shelf and self._shelf.in_place:
                raise UserError(
                    f"record {number} of {self._files[shard]} cannot be read in its bucket "
                    f"({error}); run the same command again, and if the shard is damaged, remove "
                    "it and run the same `stunet prepare` again"
                ) from error
            raise self.damaged(shard, number, error) from error

    def damaged(self, shard: int, number: int, reason: object) -> UserError:
        """Returns the error to raise for a record that cannot be understood."""
        return UserError(
            f"record {number} of {self._files[shard]} is damaged ({reason}); copy the file again, "
            "or remove it and run the same `stunet prepare` again"
        )

    def _reader(self, shard: int) -> Reader:
        with self._lock:
            reader = self._readers.get(shard)
        # Without the lock: a file that is in a bucket is fetched first.
        reader = reader or self._opened(self._files[shard])
        with self._lock:
            reader = self._readers.setdefault(shard, reader)
            self._readers.move_to_end(shard)
            # A reader closes when the last thread that reads with it lets go of it.
            while len(self._readers) > self._most_open:
                self._readers.popitem(last=False)
        return reader

    def _opened(self, file: Path) -> Reader:
        if not self._shelf:
            return whole_file(str(file))
        if self._shelf.in_place:
            # ArrayRecord itself opens addresses of gs:// alone.
            if address(file).startswith("gs:"):
                return whole_file(address(file))
            try:
                return RangeReader(address(file), self._shelf.sizes[file])
            except ValueError:  # It is laid out in another way, so it is fetched.
                self._most_open = _MOST_OPEN
        with self._shelf.lent(file) as place:
            return whole_file(place)

    def __getstate__(self):
        return self._files, self._once

    def __setstate__(self, state):
        files, once = state
        self.__init__(files, once=once)
