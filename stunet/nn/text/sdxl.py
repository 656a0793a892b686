"""The text of Stable Diffusion XL: the pooled text, and the states of both text models."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stunet.errors import UserError
from stunet.nn.text.byte_ngrams import Encoded
from stunet.nn.text.checkpoint import Change
from stunet.nn.text.cut import CutCaptions
from stunet.nn.text.pretrained import PretrainedEncoder

_FOLDERS = ("text_encoder", "text_encoder_2")


def reads(name: str) -> bool:
    """Tells whether the encoder reads this file, a path in the folder of a pipeline."""
    return name.startswith(("text_encoder/", "text_encoder_2/", "tokenizer/", "tokenizer_2/"))


class SdxlEncoder:
    """Encodes captions as the pipeline of Stable Diffusion XL does (Podell et al., arXiv
    2307.01952).

    The state of a token holds the features of the first text model, then those of the second. Both
    are states before the last layer (`stunet.nn.text.clip`). One more state comes before those of
    the tokens: the pooled text of the second model, filled up with zeros. So the pooled text is
    stored, batched and dropped with the states, as one array.

    Attributes:
        max_length: tokens in each caption.
        dim: features of each token state (d): 768 + 1280 in the published weights.
        fingerprint: digest of the weights and tokenizers of both text models, as 16 hexadecimal
            digits.
    """

    def __init__(self, folder: Path, max_length: int):
        """Finds the files of both text models. The weights are read in the first call.

        Args:
            folder: the pipeline's folder on this machine, with `text_encoder`, `tokenizer`,
                `text_encoder_2` and `tokenizer_2`.
            max_length: tokens in each caption; longer captions are cut, shorter ones padded.

        Raises:
            UserError: a file is missing or of another kind of model, or `max_length` is out of
                range.
        """
        # Both cut the same captions.
        cut = CutCaptions(max_length)
        self._encoders = [
            PretrainedEncoder("sdxl", folder / name, max_length, cut) for name in _FOLDERS
        ]
        for name, encoder, pools in zip(_FOLDERS, self._encoders, (False, True), strict=True):
            if encoder.pools != pools:
                raise UserError(
                    f"{folder}/{name}/config.json has {'no' if pools else 'a'} "
                    "CLIPTextModelWithProjection among its architectures; in Stable Diffusion XL "
                    f"only {_FOLDERS[1]} has it"
                )
        self.max_length = max_length
        self.dim = sum(encoder.dim for encoder in self._encoders)
        # The word keeps states that were stored without the pooled text from being taken.
        both = "-".join(["pooled", *(encoder.fingerprint for encoder in self._encoders)])
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()[:16]

    @property
    def models(self) -> tuple[PretrainedEncoder, ...]:
        """Returns the two text models."""
        return tuple(self._encoders)

    def changed(self, changes: Sequence[Change]) -> "SdxlEncoder":
        """Returns the encoder with changed weights; `changes` has a function for each model."""
        other = copy.copy(self)
        pairs = zip(self._encoders, changes, strict=True)
        other._encoders = [encoder.changed([change]) for encoder, change in pairs]
        return other

    def write(self, folder: Path) -> "SdxlEncoder":
        """Writes each text model, with its tokenizer, to a folder of its own in `folder`.

        See `PretrainedEncoder.write`.
        """
        for name, encoder in zip(_FOLDERS, self._encoders, strict=True):
            encoder.write(folder / name)
        return SdxlEncoder(folder, self.max_length)

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Returns the states [n, 1 + max_length, dim] of n captions, and their mask.

        An empty caption has neither tokens nor pooled text.

        Raises:
            TypeError: `captions` is a single string.
        """
        (first, _), (second, mask) = (encode(captions) for encode in self._encoders)
        pooled, second = second[:, :1], second[:, 1:]
        rows = [
            np.concatenate(pair, axis=-1) for pair in ((pooled, 0 * first[:, :1]), (first, second))
        ]
        return np.concatenate(rows, axis=1), mask

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption has more tokens than `max_length`."""
        return any(encoder.is_cut(caption) for encoder in self._encoders)
