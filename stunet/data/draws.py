"""Draws what is random in a training example from the seed and its position alone."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

# Random words that an example takes at most.
WORDS = 4
# Keeps these words apart from those of other uses of the seed.
_PURPOSE = 21


def random_words(seed: int, position: int) -> list[int]:
    """Returns `WORDS` random whole numbers from 0 to 2^64-1 for a position of the endless order."""
    # NumPy promises that SeedSequence's words stay the same in every version.
    entropy = np.random.SeedSequence([seed, _PURPOSE, position])
    return entropy.generate_state(WORDS, np.uint64).tolist()


def seed_of(seed: int, name: str) -> int:
    """Returns a seed, 0 to 2^32-1, for one of several sources of a run with the seed `seed`."""
    entropy = np.random.SeedSequence([seed, _PURPOSE, zlib.crc32(name.encode()), 1])
    return int(entropy.generate_state(1)[0])


def draw(source: Any, index: int, words: Sequence[int]) -> dict[str, Any]:
    """Returns an example of a source for training.

    A source in which something is random has a method `draw(index, words)`. Of any other source,
    the example is `source[index]`.
    """
    return source.draw(index, words) if hasattr(source, "draw") else source[index]


def normal(word: int, shape: Sequence[int]) -> Float32[np.ndarray, "..."]:
    """Returns standard normal numbers that a random word of 64 bits determines."""
    return np.random.Generator(np.random.PCG64(word)).standard_normal(shape, np.float32)


def pick(word: int, begin: int, end: int) -> int:
    """Returns a whole number in begin..end-1 that a random word of 64 bits chooses."""
    return begin + word * (end - begin) // 2**64
