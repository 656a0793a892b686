"""Holds functions that all sources of drawn clips share.

Clip `i` is drawn from (seed, split, i) alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stunet.data.spec import EncodeText
from stunet.errors import UserError

_SPLITS = {"train": 0, "val": 1}
_LENGTHS = {"train": 1_000_000, "val": 1_000}


def length_of(kind: str, split: str, length: int | None) -> int:
    """Returns the number of clips in a split.

    Args:
        kind: plural noun for what the source draws, such as "motions", used in messages.
        split: "train" or "val".
        length: number of clips; None means 1,000,000 for train and 1,000 for val.

    Raises:
        UserError: the split is unknown.
    """
    if split not in _SPLITS:
        raise UserError(f"{kind} have no split {split!r}; choose from {', '.join(_SPLITS)}")
    return _LENGTHS[split] if length is None else length


def check_least(kind: str, values: Mapping[str, tuple[int, int]]) -> None:
    """Checks that no value is below its least allowed value.

    Args:
        kind: plural noun for what the source draws, such as "motions", used in messages.
        values: (value, least allowed value), by name.

    Raises:
        UserError: a value is too small.
    """
    for name, (value, least) in values.items():
        if value < least:
            raise UserError(f"{kind} need {name} of at least {least}, not {value}")


def random_words(seed: int, split: str, i: int, length: int, count: int) -> list[int]:
    """Returns `count` random words of 64 bits for clip `i`.

    Raises:
        IndexError: `i` is not in 0..length-1.
    """
    if not 0 <= i < length:
        raise IndexError(f"clip {i} of {length}")
    # NumPy promises that SeedSequence's words stay the same in every version, unlike the methods
    # of Generator. They also cost a tenth of the time.
    entropy = np.random.SeedSequence([seed, _SPLITS[split], int(i)])
    return entropy.generate_state(count, np.uint64).tolist()


def make_example(
    drawn: np.ndarray, caption: str, channels: int, encode_text: EncodeText | None
) -> dict[str, Any]:
    """Returns the example of a drawn clip.

    Args:
        drawn: grey values uint8 [t, h, w], or colours uint8 [t, h, w, channels].
        caption: what the clip shows.
        channels: channels of the video, over which grey values are repeated.
        encode_text: encodes a list of n captions to states [n, l, d] and mask [n, l].

    Returns:
        `video` uint8 [t, h, w, channels] and `caption` str. With `encode_text` also `text` float32
        [l, d] and `text_mask` bool [l].
    """
    video = np.repeat(drawn[..., None], channels, axis=-1) if drawn.ndim == 3 else drawn
    example = {"video": video, "caption": caption}
    if encode_text is not None:
        states, mask = encode_text([caption])
        example["text"], example["text_mask"] = states[0], mask[0]
    return example
