"""The text of Stable Diffusion XL: the states of its two CLIP text models side by side."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from stunet.errors import UserError
from stunet.nn.text.byte_ngrams import Encoded
from stunet.nn.text.cut import CutCaptions
from stunet.nn.text.pretrained import PretrainedEncoder
from stunet.stores import mirror

_FOLDERS = ("text_encoder", "text_encoder_2")


class SdxlEncoder:
    """Encodes captions as the pipeline of Stable Diffusion XL does (Podell et al., arXiv
    2307.01952).

    The state of a token holds the features of the first text model, then those of the second. Both
    are states before the last layer (`stunet.nn.text.clip`).

    Attributes:
        max_length: tokens in each caption (l).
        dim: features of each token state (d): 768 + 1280 in the published weights.
        fingerprint: digest of the weights and tokenizers of both text models, as 16 hexadecimal
            digits.
    """

    def __init__(self, directory: str, max_length: int):
        """Finds the files of both text models. The weights are read in the first call.

        Args:
            directory: the pipeline's directory, with `text_encoder`, `tokenizer`, `text_encoder_2`
                and `tokenizer_2`.
            max_length: tokens in each caption; longer captions are cut, shorter ones padded.

        Raises:
            UserError: a file is missing or of another kind of model, or `max_length` is out of
                range.
        """
        folders = (mirror.fetched(directory).expanduser() / name for name in _FOLDERS)
        # Both cut the same captions.
        cut = CutCaptions(max_length)
        self._encoders = [
            PretrainedEncoder("sdxl", str(folder), max_length, cut) for folder in folders
        ]
        if not self._encoders[1].pools:
            raise UserError(
                f"{directory}/{_FOLDERS[1]}/config.json has no CLIPTextModelWithProjection among "
                "its architectures; that of Stable Diffusion XL has it"
            )
        self.max_length = max_length
        self.dim = sum(encoder.dim for encoder in self._encoders)
        both = "-".join(encoder.fingerprint for encoder in self._encoders)
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()[:16]

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Returns the states [n, max_length, dim] of n captions, and their mask [n, max_length].

        Raises:
            TypeError: `captions` is a single string.
        """
        (first, mask), (second, _) = (encode(captions) for encode in self._encoders)
        return np.concatenate([first, second], axis=-1), mask

    def pooled(self, captions: Sequence[str]) -> Float32[np.ndarray, "n p"]:
        """Returns one vector for each caption, from the second text model."""
        return self._encoders[1].pooled(captions)

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption has more tokens than `max_length`."""
        return any(encoder.is_cut(caption) for encoder in self._encoders)
