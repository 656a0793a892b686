"""Encodes the pictures of a shot one by one, and decodes a few of them again.

Every picture becomes one packet of bytes. Pictures come in groups: a picture can be decoded when
the packets from the beginning of its group on are there. A set of shots is data from strangers:
decoders are given no container that could name other files, and no picture larger than stated.
"""

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from jaxtyping import UInt8
from PIL import Image

from stunet.errors import UserError, choose

Picture = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class Codec:
    """Describes how pictures are stored.

    Attributes:
        name: key of `CODECS`.
        quality: quality in the codec's own scale. For "h264", lower is better; for "jpeg" and
            "webp", higher is better; "raw" has none.
        group: number of pictures in each group, of which the first is stored by itself and the
            others as differences. 1 stores each picture by itself.
    """

    name: str
    quality: int
    group: int

    def encode(self, pictures: Iterable[Picture]) -> Iterator[bytes]:
        """Yields one packet for each picture. All pictures must have the same even size."""
        return CODECS[self.name].encode(pictures, self.quality, self.group)

    def decode(
        self, packets: Sequence[bytes], wanted: Sequence[int], height: int, width: int
    ) -> list[av.VideoFrame]:
        """Decodes some pictures of a shot.

        Args:
            packets: the packets of all pictures of the shot.
            wanted: ascending numbers of the pictures to return.
            height: rows of each picture.
            width: columns of each picture.

        Raises:
            ValueError: a packet is damaged, or holds a picture of another size.
        """
        frames: list[av.VideoFrame] = []
        for run, numbers in _runs(wanted, self.group):
            try:
                decoded = CODECS[self.name].decode(packets[run.start : run.stop], height, width)
            except av.FFmpegError as error:
                raise ValueError(error.strerror or type(error).__name__) from error
            frames += [decoded[number - run.start] for number in numbers]
        for frame in frames:
            if (frame.height, frame.width) != (height, width):
                raise ValueError(f"a picture has {frame.height}x{frame.width} pixels")
        return frames


@dataclasses.dataclass(frozen=True)
class Kind:
    """Holds the functions and defaults of one kind of codec.

    Attributes:
        encode: maps pictures, quality and group to packets.
        decode: maps the packets of whole groups (the last may be cut short), height and width to
            pictures.
        qualities: allowed qualities.
        quality: default quality.
        groups: allowed numbers of pictures in each group.
        group: default number of pictures in each group.
    """

    encode: Callable[[Iterable[Picture], int, int], Iterator[bytes]]
    decode: Callable[[Sequence[bytes], int, int], list[av.VideoFrame]]
    qualities: range
    quality: int
    groups: range = range(1, 2)
    group: int = 1


def make_codec(name: str, quality: int | None = None, group: int | None = None) -> Codec:
    """Returns a codec; None stands for the default of its kind.

    Raises:
        UserError: the name is unknown, or a value is out of range.
    """
    kind = choose(CODECS, name, "codec")
    quality = kind.quality if quality is None else quality
    group = kind.group if group is None else group
    for what, value, allowed in (
        ("quality", quality, kind.qualities),
        ("pictures in each group", group, kind.groups),
    ):
        if value not in allowed:
            raise UserError(
                f"the codec {name!r} takes {what} from {allowed[0]} to {allowed[-1]}, not {value}"
            )
    return Codec(name, quality, group)


class Box(NamedTuple):
    """Names a part of a picture: its first row and column, and its size, all even."""

    top: int
    left: int
    height: int
    width: int


def cut_out(
    frames: Sequence[av.VideoFrame], box: Box, rows: int, columns: int, channels: int
) -> UInt8[np.ndarray, "t rows columns c"]:
    """Cuts the same part out of decoded pictures, scales it, and converts it to RGB or grey."""
    shrinks = rows * columns <= box.height * box.width
    scale = {
        "w": str(columns),
        "h": str(rows),
        # Area averaging shrinks without aliasing, but would show blocks when it enlarges.
        "flags": ("area" if shrinks else "bicubic") + "+accurate_rnd+full_chroma_int",
        "in_color_matrix": "bt601",
        "in_range": "full",
        "out_range": "full",
    }
    crop = {"w": box.width, "h": box.height, "x": box.left, "y": box.top, "exact": 1}
    filters = (
        # Cutting out first scales fewer pixels.
        ("crop", {name: str(value) for name, value in crop.items()}),
        ("scale", scale),
        ("format", {"pix_fmts": "rgb24" if channels == 3 else "gray"}),
        ("buffersink", {}),
    )
    graph = av.filter.Graph()
    # More threads would only compete with those that read other clips.
    graph.threads = 1
    first = frames[0]
    node = graph.add_buffer(
        width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 1000)
    )
    for name, options in filters:
        following = graph.add(name, **options)
        node.link_to(following)
        node = following
    graph.configure()
    clip = np.empty((len(frames), rows, columns, channels), np.uint8)
    for frame, place in zip(frames, clip, strict=True):
        frame.pts = 0
        graph.vpush(frame)
        place[:] = graph.vpull().to_ndarray().reshape(place.shape)
    return clip


def _runs(wanted: Sequence[int], group: int) -> Iterator[tuple[range, list[int]]]:
    """Yields ranges of packets that together hold the wanted pictures, and the pictures in each.

    Each range begins with a group. Groups that no wanted picture belongs to are left out.
    """
    run, numbers = range(0), []
    for number in wanted:
        begin = number // group * group
        if numbers and begin > run.stop:
            yield run, numbers
            numbers = []
        run = range(run.start if numbers else begin, number + 1)
        numbers.append(number)
    if numbers:
        yield run, numbers


def _encode_raw(pictures, quality, group) -> Iterator[bytes]:
    return (picture.tobytes() for picture in pictures)


def _decode_raw(packets, height, width) -> list[av.VideoFrame]:
    shape = height, width, 3
    arrays = (np.frombuffer(packet, np.uint8).reshape(shape) for packet in packets)
    return [av.VideoFrame.from_ndarray(array, format="rgb24") for array in arrays]


def _encode_with_pillow(name: str, **options):
    def encode(pictures, quality, group) -> Iterator[bytes]:
        for picture in pictures:
            file = io.BytesIO()
            Image.fromarray(picture).save(file, name, quality=quality, **options)
            yield file.getvalue()

    return encode


def _decode_with_pillow(name: str):
    def decode(packets, height, width) -> list[av.VideoFrame]:
        frames = []
        for packet in packets:
            with Image.open(io.BytesIO(packet), formats=[name]) as picture:
                if picture.size != (width, height):
                    raise ValueError(f"a picture has {picture.height}x{picture.width} pixels")
                array = np.asarray(picture.convert("RGB"))
            frames.append(av.VideoFrame.from_ndarray(array, format="rgb24"))
        return frames

    return decode


_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def _encode_h264(pictures, quality, group) -> Iterator[bytes]:
    context = None
    for count, picture in enumerate(pictures):
        if context is None:
            context = _h264_encoder(*picture.shape[:2], quality, group)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA | _EXACT,
            threads=1,
        )
        frame.pts = count
        yield from map(bytes, context.encode(frame))
    if context is not None:
        yield from map(bytes, context.encode(None))


def _h264_encoder(height: int, width: int, quality: int, group: int) -> av.CodecContext:
    context = av.CodecContext.create("libx264", "w")
    context.height, context.width, context.pix_fmt = height, width, "yuv420p"
    context.time_base, context.color_range, context.colorspace = Fraction(1, 25), 2, 6
    # Without B-frames, packets come in the order of the pictures. The bits depend on the number of
    # threads, and with x264's trees of macroblocks they changed in 18 of 1,000 runs.
    parameters = dict(bframes=0, keyint=group, min_keyint=group, scenecut=0, threads=1, mbtree=0)
    context.thread_count = 1
    context.options = {
        "preset": "medium",
        "crf": str(quality),
        "x264-params": ":".join(f"{k.replace('_', '-')}={v}" for k, v in parameters.items()),
    }
    return context


def _decode_h264(packets, height, width) -> list[av.VideoFrame]:
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    most = (height + 64) * (width + 64)  # Decoders count the padding of pictures too.
    context.options = {"err_detect": "crccheck+explode", "max_pixels": str(most)}
    frames = []
    for packet in (*(av.Packet(packet) for packet in packets), None):
        frames += context.decode(packet)
    if len(frames) != len(packets) or any(frame.is_corrupt for frame in frames):
        raise ValueError(f"{len(frames)} of {len(packets)} pictures can be decoded")
    return frames


CODECS: dict[str, Kind] = {
    "h264": Kind(_encode_h264, _decode_h264, range(0, 52), 18, range(1, 251), 8),
    "webp": Kind(
        _encode_with_pillow("WEBP", method=4), _decode_with_pillow("WEBP"), range(1, 101), 90
    ),
    "jpeg": Kind(_encode_with_pillow("JPEG"), _decode_with_pillow("JPEG"), range(1, 101), 95),
    "raw": Kind(_encode_raw, _decode_raw, range(0, 1), 0),
}
