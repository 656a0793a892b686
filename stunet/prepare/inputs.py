"""Finds the videos that the user names: in a folder, in a list, or in tar files."""

from pathlib import Path

from stunet.errors import UserError
from stunet.prepare import lists, tars
from stunet.prepare.entries import Entry, Input
from stunet.prepare.finding import find_videos
from stunet.prepare.kinds import VIDEOS, Kind


def find(place: Path, kind: Kind = VIDEOS) -> Input:
    """Returns the videos of an input.

    Args:
        place: a folder of videos (`find_videos`), a folder of tar files, a tar file (`tars`), or a
            list of videos (`lists`).
        kind: kind of the files to read in folders and tar files: videos or pictures. A list names
            what it names.

    Raises:
        UserError: there is no such file or folder, it is of no known kind, or holds no video.
    """
    if place.suffix.lower() == ".tar" and place.is_file():
        return tars.read(place.parent, [place], kind)
    if place.suffix.lower() in lists.KINDS and place.exists():
        return lists.read(place)
    if place.is_file():
        kinds = ", ".join([*lists.KINDS, ".tar"])
        raise UserError(
            f"{place} is neither a folder nor a list of videos; lists and archives end in {kinds}"
        )
    archives = sorted(place.glob("*.tar")) if place.is_dir() else []
    if archives:
        return tars.read(place, archives, kind)
    found = find_videos(place, kind)
    entries = [
        Entry(path, (caption,) if caption else ()) for path, caption in found.captions.items()
    ]
    return Input(place, lambda: iter(entries), found.notes)
