"""Encodes captions in batches."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

# Captions in each call of the text encoder.
_BATCH_SIZE = 64


class EncodeText(Protocol):
    """Encodes n captions to states float32 [n, l, d] and a mask bool [n, l]."""

    def __call__(self, captions: Sequence[str], /) -> tuple[np.ndarray, np.ndarray]: ...

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption is so long that the encoder cuts it."""


def encode_captions(
    captions: Sequence[str], encode_text: EncodeText | None
) -> Iterator[dict[str, np.ndarray]]:
    """Encodes captions in batches. Each batch holds a repeated caption only once.

    Args:
        captions: one caption for each video.
        encode_text: encodes n captions to states float32 [n, l, d] and mask bool [n, l]; None
            encodes nothing.

    Yields:
        `text` [l, d] and `text_mask` [l] of each caption in turn, or an empty dict without
        `encode_text`.
    """
    for begin in range(0, len(captions), _BATCH_SIZE):
        batch = captions[begin : begin + _BATCH_SIZE]
        if encode_text is None:
            yield from ({} for _ in batch)
            continue
        rows = {caption: i for i, caption in enumerate(dict.fromkeys(batch))}
        states, mask = encode_text(list(rows))
        for caption in batch:
            yield {"text": states[rows[caption]], "text_mask": mask[rows[caption]]}
