"""Packs a shot into a record of bytes, and unpacks it."""

from typing import Annotated

import msgspec

# Pictures in a record, and rows and columns of a picture: far above what `prepare` writes.
_MOST_PIXELS = 36_000_000


class Shot(msgspec.Struct, frozen=True, array_like=True):
    """Holds a stretch of a video whose pictures are all encoded in the same way.

    Attributes:
        source: path of the video, as the user named it.
        begin: second of the video at which the shot begins.
        captions: captions of the video, at least one. A video without a caption has the caption "".
        states: for each caption, the number of its record among the shard's text states.
        height: rows of each picture.
        width: columns of each picture.
        packets: the pictures, one packet of the codec each.
    """

    source: str
    begin: float
    captions: Annotated[list[str], msgspec.Meta(min_length=1)]
    states: list[Annotated[int, msgspec.Meta(ge=0)]]
    height: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    width: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    packets: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Shot)


def pack(shot: Shot) -> bytes:
    """Returns the record of a shot."""
    return _encoder.encode(shot)


def unpack(record: bytes) -> Shot:
    """Returns the shot of a record.

    Raises:
        ValueError: the record is damaged.
    """
    try:
        shot = _decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    if shot.height * shot.width > _MOST_PIXELS or len(shot.captions) != len(shot.states):
        raise ValueError("it states impossible sizes")
    return shot
