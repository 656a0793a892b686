"""Finds the videos that the user names: in a folder, in a list, or in tar files."""

from pathlib import Path

from stunet.errors import UserError
from stunet.prepare import lists, tars
from stunet.prepare.entries import Entry, Input
from stunet.prepare.finding import find_videos
from stunet.prepare.kinds import VIDEOS, Kind
from stunet.stores import mirror, objects
from stunet.stores.addresses import address


def find(place: Path, kind: Kind = VIDEOS) -> Input:
    """Returns the videos of an input.

    Args:
        place: a folder of videos (`find_videos`), a folder of tar files, a tar file (`tars`), or a
            list of videos (`lists`). It may be in a bucket (`stunet.stores.addresses.local`).
        kind: kind of the files to read in folders and tar files: videos or pictures. A list names
            what it names.

    Raises:
        UserError: there is no such file or folder, it is of no known kind, or holds no video.
    """
    is_file = _is_object(place) if address(place) else place.is_file()
    if place.suffix.lower() == ".tar" and is_file:
        return tars.read(place.parent, [place], kind)
    if place.suffix.lower() in lists.KINDS and (is_file or place.exists()):
        mirror.pull(place)
        return lists.read(place)
    if is_file:
        kinds = ", ".join([*lists.KINDS, ".tar"])
        raise UserError(
            f"{place} is neither a folder nor a list of videos; lists and archives end in {kinds}"
        )
    archives = _archives(place)
    if archives:
        return tars.read(place, archives, kind)
    found = find_videos(place, kind)
    entries = [
        Entry(path, (caption,) if caption else ()) for path, caption in found.captions.items()
    ]
    return Input(place, lambda: iter(entries), found.notes)


def _is_object(place: Path) -> bool:
    where = address(place)
    return objects.is_object(where) and not objects.listing(where)


def _archives(place: Path) -> list[Path]:
    """Returns the tar files in a folder, but not those in folders below it."""
    if where := address(place):
        names = (name for name in objects.listing(where) if "/" not in name)
        return sorted(place / name for name in names if name.endswith(".tar"))
    return sorted(place.glob("*.tar")) if place.is_dir() else []
