"""Writes clips as files for people: animated contact sheets (GIF, MP4) and slices (PNG)."""

from stunet.data.media.animations import write_gif, write_mp4
from stunet.data.media.sheets import contact_sheet, to_uint8
from stunet.data.media.slices import (
    most_variable_column,
    most_variable_row,
    moves_vertically,
    read_slices,
    write_xt,
    xt_slice,
    yt_slice,
)

__all__ = [
    "contact_sheet",
    "most_variable_column",
    "most_variable_row",
    "moves_vertically",
    "read_slices",
    "to_uint8",
    "write_gif",
    "write_mp4",
    "write_xt",
    "xt_slice",
    "yt_slice",
]
