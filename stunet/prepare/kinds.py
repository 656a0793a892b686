"""Tells from names which files are videos, and which are pictures."""

import dataclasses
from pathlib import PurePath, PurePosixPath

from stunet.prepare.opening import VIDEO_SUFFIXES
from stunet.prepare.places import Member, Place

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of files that are prepared.

    Attributes:
        name: what such a file is called, in singular.
        suffixes: how the names of such files end, in small letters.
    """

    name: str
    suffixes: tuple[str, ...]

    def matches(self, name: str | PurePath) -> bool:
        """Tells whether a file's name has one of the suffixes."""
        return PurePosixPath(name).suffix.lower() in self.suffixes

    def none(self) -> str:
        """Returns a clause for a place without such files, such as "no video; videos end in"."""
        return f"no {self.name}; {self.name}s are files that end in {', '.join(self.suffixes)}"


VIDEOS = Kind("video", VIDEO_SUFFIXES)
PICTURES = Kind("picture", PICTURE_SUFFIXES)


def is_picture(place: Place) -> bool:
    """Tells whether the name of a file, or of a member of a tar file, is that of a picture."""
    return PICTURES.matches(place.name if isinstance(place, Member) else place)
