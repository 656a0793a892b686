"""Names where a video lies: in a file of its own, or in a tar file."""

import dataclasses
import io
from pathlib import Path

from stunet.stores.large import Loans


@dataclasses.dataclass(frozen=True)
class Member:
    """Names a video in a tar file.

    Attributes:
        archive: the tar file.
        name: name of the video in the tar file.
        offset: byte of the tar file at which the video begins.
        size: size of the video in bytes.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


Place = Path | Member


def fetched(place: Place, loans: Loans) -> Place:
    """Returns a place of this machine at which a video, which may be in a bucket, can be read.

    Of a tar file in a bucket, only the video is fetched.

    Raises:
        Missing: there is no such object.
        UserError: the bucket cannot be read.
    """
    if not isinstance(place, Member):
        return loans.get(place)
    file = loans.get(place.archive, place.offset, place.size)
    if file == place.archive:
        return place
    return dataclasses.replace(place, archive=file, offset=0)


class Section(io.RawIOBase):
    """Reads a video in a tar file as if it were a file of its own."""

    def __init__(self, member: Member):
        self._file = member.archive.open("rb")
        self._begin, self._size, self._place = member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer) -> int:
        wanted = memoryview(buffer)[: max(0, self._size - self._place)]
        self._file.seek(self._begin + self._place)
        count = self._file.readinto(wanted)
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
