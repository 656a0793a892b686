"""From a config to the examples that it asks for."""

from typing import Any

import grain

from stunet import configs
from stunet.data.clips import ClipRecords
from stunet.data.motions import Motions, Stage
from stunet.data.moving_digits import MovingDigits
from stunet.errors import choose
from stunet.nn.text import TextEncoder, text_encoder

Source = grain.sources.RandomAccessDataSource


class First:
    """The first `length` examples of a source."""

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, min(length, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]


def make_encoder(text: configs.Text) -> TextEncoder:
    """The text encoder of a config: captions -> states `[n, l, d]` and mask `[n, l]`."""
    return text_encoder(text.encoder, text.max_length, text.dim)


def make_source(config: configs.Config, split: str) -> Source:
    """Examples of a split, "train" or "val", with clips and text states of the config's shape.

    Raises:
        UserError: no such data, or data of another shape.
    """
    source = choose(SOURCES, config.data.source, "data.source")(config, split)
    if split == "train" and config.data.num_clips:
        source = First(source, config.data.num_clips)
    return source


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
        pace=data.speed,
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
    return ClipRecords(
        data.path,
        split,
        frames=data.frames,
        height=data.height,
        width=data.width,
        channels=data.channels,
        fps=data.fps,
        encode_text=make_encoder(text),
        text_encoder=text.encoder,
        text_shape=(text.max_length, text.dim),
    )


SOURCES = {"moving_digits": _moving_digits, "motions": _motions, "clips": _clips}
