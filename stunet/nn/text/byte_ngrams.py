"""A text encoder that hashes the bytes of words. It needs no download, training or network."""

import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from stunet.nn.text.cut import CutCaptions

# Token states and their mask, which is True on tokens and False on padding.
Encoded = tuple[Float32[np.ndarray, "n l d"], Bool[np.ndarray, "n l"]]

# Bytes of states that one encoder may cache. Procedural data and later epochs repeat captions. For
# a large data set, `stunet prepare` writes the states to its records once.
_CACHE_BYTES = 64 * 2**20
_LONGEST_NGRAM = 4  # bytes
_ROW_BITS = 13  # the table of signs has 2^13 rows
# Amplitude of the position code, beside words of unit RMS. It is enough to tell the order of words,
# and too little to make all captions alike.
_POSITION_SCALE = 0.25
_WORD = re.compile(r"\w+|[^\w\s]")


class BytesEncoder:
    """Encodes a caption word by word, from the bytes of each word.

    A token is one word or punctuation mark of the lower-cased caption. Each n-gram of 1 to 4 of its
    UTF-8 bytes has a vector of fixed pseudo-random signs. The token's state is the sum of these
    vectors, scaled to unit RMS, plus a small sinusoidal position code.

    The states of different words are nearly orthogonal, and those of words with the same stem are
    similar. All words have the same weight in a mean over tokens, because their states have the
    same RMS. The same caption gives the same bits on every machine. Checkpoints rely on this.

    Attributes:
        max_length: tokens in each caption (l).
        dim: features of each token state (d).
        fingerprint: empty, because there are no weights that could differ.
    """

    fingerprint = ""

    def __init__(self, max_length: int, dim: int):
        self.max_length = max_length
        self.dim = dim
        self._cut = CutCaptions(max_length)
        self._features = _random_signs(1 << _ROW_BITS, dim)
        self._positions = _positions(max_length, dim)
        entries = max(1, _CACHE_BYTES // (4 * max_length * dim))
        self._encode = functools.lru_cache(maxsize=entries)(self._encode_caption)

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Encodes n captions.

        Words beyond `max_length` are cut off, and a sentence on stderr says so. An empty caption
        has no token at all. In guidance, such a caption means "no text".

        Args:
            captions: list of captions.

        Returns:
            States [n, max_length, dim], zero on padding, and the mask [n, max_length], True on
            tokens and False on padding.

        Raises:
            TypeError: `captions` is a single string.
        """
        if isinstance(captions, str):
            raise TypeError("an encoder takes a list of captions, not one string")
        states = np.zeros((len(captions), self.max_length, self.dim), np.float32)
        mask = np.zeros((len(captions), self.max_length), bool)
        for i, caption in enumerate(captions):
            tokens = self._encode(caption)
            states[i, : len(tokens)] = tokens
            mask[i, : len(tokens)] = True
        return states, mask

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption has more tokens than `max_length`."""
        return len(_WORD.findall(caption.lower())) > self.max_length

    def _encode_caption(self, caption: str) -> np.ndarray:
        """Returns the states of a caption's tokens, float32 [words, dim], without padding."""
        words = _WORD.findall(caption.lower())
        if len(words) > self.max_length:
            self._cut.tell(caption)
            del words[self.max_length :]
        states = np.empty((len(words), self.dim), np.float32)
        for i, word in enumerate(words):
            ngrams = _ngrams(word.encode("utf-8", errors="replace"))
            rows = _mix(ngrams) >> np.uint64(64 - _ROW_BITS)
            # A sum of integers is the same on every machine, whatever the order of the terms.
            signs = self._features[rows].sum(0, dtype=np.int64)
            rms = np.sqrt(np.dot(signs, signs) / self.dim)
            states[i] = signs / max(rms, 1.0) + self._positions[i]
        return states


def _ngrams(word: bytes) -> np.ndarray:
    """Returns a code for each n-gram of a word, uint64 [count].

    The bytes 2 and 3 mark the start and the end of the word. These bytes are part of the n-grams.
    """
    padded = np.frombuffer(b"\x02" + word + b"\x03", np.uint8).astype(np.uint64)
    codes, code = [], np.zeros(len(padded), np.uint64)
    for n in range(1, min(_LONGEST_NGRAM, len(padded)) + 1):
        code = (code[: len(padded) - n + 1] << np.uint64(8)) | padded[n - 1 :]
        codes.append(code | np.uint64(n << 32))
    return np.concatenate(codes)


def _mix(x: np.ndarray) -> np.ndarray:
    """Hashes each uint64 with one step of SplitMix64, which is a permutation."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _random_signs(rows: int, dim: int) -> np.ndarray:
    """Returns a table of -1 and 1, int8 [rows, dim].

    A wider table begins with the columns of a narrower one.
    """
    words = -(-dim // 64)
    counters = np.arange(words, dtype=np.uint64) << np.uint64(32)
    mixed = _mix(counters + np.arange(rows, dtype=np.uint64)[:, None])
    bits = np.unpackbits(mixed.astype("<u8").view(np.uint8), axis=1)[:, :dim]
    return bits.astype(np.int8) * 2 - 1


def _positions(length: int, dim: int) -> np.ndarray:
    """Returns the position code, float64 [length, dim].

    The code consists of sines and cosines with periods of 4 to 1,024 tokens.
    """
    half = -(-dim // 2)
    period = 4 * 256 ** (np.arange(half) / half)
    phase = 2 * np.pi * np.arange(length)[:, None] / period
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)[:, :dim]
    # Rounded, because sines may differ in their last bits between machines.
    return np.round(waves * _POSITION_SCALE, 3)
