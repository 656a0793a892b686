"""Describes the clips and captions of a run: small frozen values that the rooms hand on."""

import dataclasses
import functools
from typing import Any

from stunet.nn.text import TextEncoder, text_encoder


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Shape and rate of the clips that a network denoises.

    Attributes:
        frames: number of frames in each clip.
        height: number of pixel rows.
        width: number of pixel columns.
        channels: 1 (grey) or 3 (RGB).
        fps: frames per second of the source, before any are left out.
        stride: distance between two frames of a clip, in frames of the source. Keyframes have a
            stride above 1.
    """

    frames: int
    height: int
    width: int
    channels: int
    fps: float
    stride: int = 1

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Shape of one frame, `[h, w, c]`."""
        return self.height, self.width, self.channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip, `[t, h, w, c]`."""
        return self.frames, *self.frame_shape

    @property
    def span(self) -> int:
        """Frames of the source from the first frame of a clip to its last, both included."""
        return (self.frames - 1) * self.stride + 1

    @property
    def frame_rate(self) -> float:
        """Frames per second at which a clip plays as fast as its source."""
        return self.fps / self.stride


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """The text encoder of a run, and the shape of the token states that it makes.

    Attributes:
        encoder: name of the encoder, as `stunet.nn.text.text_encoder` takes it.
        max_length: largest number of tokens in a caption (l); longer captions are cut.
        dim: width of a token's state (d).
        fingerprint: digest of the encoder's weights and tokenizer; "" where none is known.
    """

    encoder: str
    max_length: int
    dim: int
    fingerprint: str = ""

    def matches(self, other: "TextSpec") -> bool:
        """Tells whether both are the same encoder, which may lie in another directory."""
        if (self.max_length, self.dim) != (other.max_length, other.dim):
            return False
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        return self.encoder == other.encoder


@functools.lru_cache(maxsize=4)
def make_encoder(text: TextSpec) -> TextEncoder | Any:
    """Makes the text encoder of a run: captions -> states `[n, l, d]` and mask `[n, l]`.

    Training and validation share one encoder, whose weights may be large.

    Raises:
        UserError: as `stunet.nn.text.text_encoder`, whose attributes the encoder has.
    """
    return text_encoder(text.encoder, text.max_length, text.dim, text.fingerprint)
