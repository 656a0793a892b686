"""From a config to the examples that it asks for."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from stunet import configs
from stunet.data.clips import ClipRecords, read_metadata
from stunet.data.synthetic.motions import Motions, Stage
from stunet.data.synthetic.moving_digits import MovingDigits
from stunet.errors import UserError, choose
from stunet.nn.text import Encoded, TextEncoder, text_encoder

Source = grain.sources.RandomAccessDataSource


class First:
    """The first `length` examples of a source."""

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, min(length, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]

    def truth(self, index: int) -> Any:
        """As the source's."""
        return self._source.truth(index)


class Spread:
    """`length` examples of a source, evenly spaced, or all if there are fewer."""

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, min(length, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(f"clip {index} of {self._length}")
        return self._source[index * len(self._source) // self._length]


class Cut:
    """Clips of `frames` frames, cut from the longer ones of a source: as many as each holds, each
    beginning with the last frame of the one before, as the windows of a cascade do.

    Clip i * pieces + j is piece j of the source's clip i, with its caption.
    """

    def __init__(self, source: Source, length: int, frames: int):
        """
        Args:
            source: of clips of `length` frames.
            length: frames of the source's clips.
            frames: at most `length`.
        """
        self.source, self._frames = source, frames
        self._hop = max(1, frames - 1)
        self.pieces = (length - frames) // self._hop + 1

    def __len__(self) -> int:
        return len(self.source) * self.pieces

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        clip, piece = divmod(index, self.pieces)
        example, begin = self.source[clip], piece * self._hop
        return example | {"video": example["video"][begin : begin + self._frames]}


class Strided:
    """Every `stride`-th frame of each clip of a source, from the first on."""

    def __init__(self, source: Source, stride: int):
        self._source, self._stride = source, stride

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return example | {"video": np.ascontiguousarray(example["video"][:: self._stride])}

    def truth(self, index: int) -> Any:
        """As the source's, so that velocities are per frame of the source: `stride` of them lie
        between two frames of a clip here."""
        return self._source.truth(index)


@functools.lru_cache(maxsize=4)
def make_encoder(text: configs.Text) -> TextEncoder | Any:
    """The text encoder of a config: captions -> states `[n, l, d]` and mask `[n, l]`.

    Training and validation share one, whose weights may be large.

    Raises:
        UserError: as `text_encoder`, whose attributes it has.
    """
    return text_encoder(text.encoder, text.max_length, text.dim, text.fingerprint)


def with_fingerprint(config: configs.Config) -> configs.Config:
    """The config with the fingerprint of its text encoder noted in it, so that nothing goes on with
    other weights: as the records say, if they hold the states, and or else as the encoder does.

    Raises:
        UserError: the encoder is needed and cannot be made.
    """
    text = config.text
    if text.fingerprint:
        return config
    noted = {}
    configs.check_data(config)
    if config.data.source == "clips":
        noted = read_metadata(pathlib.Path(config.data.path)).get("text_encoder", {})
    fingerprint = noted.get("fingerprint", "") or make_encoder(text).fingerprint
    return dataclasses.replace(config, text=dataclasses.replace(text, fingerprint=fingerprint))


def make_source(config: configs.Config, split: str) -> Source:
    """Examples of a split, "train" or "val", with clips and text states of the config's shape.

    The source is asked for the frames that a clip spans, or for `data.cut_from`, and knows nothing
    of strides. Of `data.num_clips` of its clips, every network of a cascade sees all.

    Raises:
        UserError: no such data, or data of another shape.
    """
    configs.check_data(config)
    data = config.data
    span = configs.clip_span(data)
    whole = dataclasses.replace(data, frames=data.cut_from or span)
    make = choose(SOURCES, data.source, "data.source")
    try:
        source = make(dataclasses.replace(config, data=whole), split)
    except UserError as error:
        if whole.frames == data.frames:
            raise
        raise UserError(
            f"{error}; data.frames is {data.frames}, which at data.stride {data.stride} spans "
            f"{span} frames of the source, and data.cut_from, the frames of its clips, is "
            f"{data.cut_from}"
        ) from error
    if split == "train" and data.num_clips:
        source = First(source, data.num_clips)
    if whole.frames > span:
        source = Cut(source, whole.frames, span)
    return Strided(source, data.stride) if data.stride > 1 else source


def sample(source: Source, num: int, data: configs.Data) -> Source:
    """A source whose first `num` clips, or all if there are fewer, stand for those of `source`.

    Stored clips lie in the order of their videos, so that the first ones may be of the first class
    alone: evenly spaced ones are taken. Clips that are made are independent, and the first do.
    """
    return Spread(source, num) if data.source == "clips" else source


def _moving_digits(config: configs.Config, split: str) -> Source:
    data = config.data
    return MovingDigits(
        split,
        data.frames,
        data.height,
        data.width,
        data.channels,
        seed=config.seed,
        encode_text=make_encoder(config.text),
        digit_size=data.digit_size,
        num_digits=data.num_digits,
        styles=data.digit_styles,
        speed_factor=data.speed,
    )


def _motions(config: configs.Config, split: str) -> Source:
    data = config.data
    stage = Stage(
        data.motion,
        data.height,
        data.width,
        size=data.object_size,
        speed=data.speed,
        period=data.period,
        spread=data.speed_spread,
    )
    return Motions(
        split,
        stage,
        data.frames,
        data.channels,
        seed=config.seed,
        encode_text=make_encoder(config.text),
    )


def _clips(config: configs.Config, split: str) -> Source:
    data, text = config.data, config.text
    records = ClipRecords(
        data.path,
        split,
        frames=data.frames,
        height=data.height,
        width=data.width,
        channels=data.channels,
        fps=data.fps,
        encode_text=functools.partial(_encode, text),
        text_encoder=text.encoder,
        text_fingerprint=text.fingerprint,
        text_shape=(text.max_length, text.dim),
    )
    if records.text_shape is None:
        make_encoder(text)
    return records


def _encode(text: configs.Text, captions: Sequence[str]) -> Encoded:
    """Makes the encoder when it is first asked: records that hold states need none, and where they
    are trained on there may be none."""
    return make_encoder(text)(captions)


SOURCES = {"moving_digits": _moving_digits, "motions": _motions, "clips": _clips}
