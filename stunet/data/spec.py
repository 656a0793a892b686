"""Defines dataclasses that describe the clips and captions of a run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stunet.configs import text_encoders
from stunet.errors import UserError
from stunet.nn.autoencoder import Autoencoder
from stunet.nn.autoencoder import read as read_autoencoder
from stunet.nn.text import TextEncoder, text_encoder
from stunet.stores import mirror

# Encodes n captions to states float32 [n, l, d] and a mask bool [n, l].
EncodeText = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Describes the shape and rate of the clips that a network denoises.

    Attributes:
        frames: number of frames in each clip.
        height: number of pixel rows.
        width: number of pixel columns.
        channels: 1 (grey) or 3 (RGB).
        fps: frames per second of the source, before the stride.
        stride: distance between neighbouring frames of a clip, in frames of the source. A network
            that makes keyframes has a stride above 1.
    """

    frames: int
    height: int
    width: int
    channels: int
    fps: float
    stride: int = 1

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Returns the shape of one frame, (h, w, c)."""
        return self.height, self.width, self.channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Returns the shape of one clip, (t, h, w, c)."""
        return self.frames, *self.frame_shape

    @property
    def span(self) -> int:
        """Returns the number of source frames from a clip's first frame to its last, inclusive."""
        return (self.frames - 1) * self.stride + 1

    @property
    def frame_rate(self) -> float:
        """Returns the frames per second at which a clip plays as fast as its source."""
        return self.fps / self.stride


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """Describes the text encoder of a run and the shape of its token states.

    Attributes:
        encoder: name of the encoder, as `stunet.nn.text.text_encoder` takes it.
        max_length: number of tokens after which a caption is cut.
        dim: width of a token's state (d).
        fingerprint: digest of the encoder's weights and tokenizer; "" if none is known.
    """

    encoder: str
    max_length: int
    dim: int
    fingerprint: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Returns the shape (l, d) of one caption's states.

        l counts the tokens, and the pooled text if the encoder gives it.
        """
        return self.max_length + text_encoders.pools(self.encoder), self.dim

    def matches(self, other: "TextSpec") -> bool:
        """Tells whether this and `other` name the same encoder, wherever its files lie."""
        if (self.max_length, self.dim) != (other.max_length, other.dim):
            return False
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        return self.encoder == other.encoder


@dataclasses.dataclass(frozen=True)
class AutoencoderSpec:
    """Describes the autoencoder whose latents a network denoises, and the shape of its latents.

    Attributes:
        path: directory of the autoencoder, as `stunet.nn.autoencoder.read` takes it; the
            fingerprint if the directory is not known.
        factor: rows, or columns, of a frame for each row or column of its latents.
        channels: channels of the latents.
        fingerprint: digest of the autoencoder's config and weights; "" if none is known.
    """

    path: str
    factor: int
    channels: int
    fingerprint: str = ""

    def matches(self, other: "AutoencoderSpec") -> bool:
        """Tells whether this and `other` name the same autoencoder, wherever its files lie."""
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        return self.path == other.path


@functools.lru_cache(maxsize=4)
def make_encoder(text: TextSpec) -> TextEncoder | Any:
    """Makes the text encoder of a run, which maps captions to states [n, l, d] and mask [n, l].

    The encoder has the attributes that `stunet.nn.text.text_encoder` describes. Training and
    validation share one encoder, because its weights may be large.

    Raises:
        UserError: the encoder cannot be made.
    """
    return text_encoder(text.encoder, text.max_length, text.dim, text.fingerprint)


@functools.lru_cache(maxsize=2)
def make_autoencoder(spec: AutoencoderSpec) -> Autoencoder:
    """Reads the autoencoder of a run. Previews and evaluation share one.

    Raises:
        UserError: the autoencoder cannot be read, or is not the one whose latents the run denoises.
    """
    if spec.path == spec.fingerprint:
        raise UserError(
            f"the network denoises latents of the autoencoder {spec.fingerprint}, and its weights "
            "come without the autoencoder; give the autoencoder's directory as --autoencoder DIR, "
            "or in Python as autoencoder=DIR"
        )
    try:
        autoencoder = read_autoencoder(mirror.fetched(spec.path))
    except UserError as error:
        raise UserError(f"autoencoder.path: {error}") from error
    of = autoencoder.architecture
    if spec.fingerprint not in ("", autoencoder.fingerprint):
        raise UserError(
            f"autoencoder.path: the autoencoder in {spec.path} is not the one whose latents the "
            f"run denoises: its fingerprint is {autoencoder.fingerprint}, not {spec.fingerprint}; "
            "use the same autoencoder as in training"
        )
    if (of.factor, of.latent_channels) != (spec.factor, spec.channels):
        raise UserError(
            f"the autoencoder in {spec.path} has a factor of {of.factor} and {of.latent_channels} "
            f"latent channels; set autoencoder.factor and autoencoder.channels to these, not "
            f"{spec.factor} and {spec.channels}"
        )
    return autoencoder
