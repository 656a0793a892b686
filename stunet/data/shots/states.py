"""Reads and writes text states of captions, in bfloat16 and without padding."""

import dataclasses
from pathlib import Path
from typing import Annotated

import ml_dtypes
import msgspec
import numpy as np
from jaxtyping import Bool, Float32

from stunet import jsonfiles
from stunet.data.shots.layout import Index
from stunet.data.shots.shards import Shards
from stunet.data.spec import TextSpec
from stunet.errors import UserError

ENCODER_FILE = "encoder.json"
_Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Notes which text encoder made the states in a directory.

    Attributes:
        name: name of the encoder, as `stunet.nn.text.text_encoder` takes it.
        fingerprint: digest of the encoder's weights and tokenizer; "" if it has none.
        max_length: number of tokens after which a caption is cut.
        dim: width of a token's state.
    """

    name: str
    fingerprint: str
    max_length: _Size
    dim: _Size

    @property
    def shape(self) -> tuple[int, int]:
        """Returns the shape (l, d) of one caption's states, with padding."""
        return TextSpec(self.name, self.max_length, self.dim).shape

    @property
    def kind(self) -> str:
        """Returns the encoder's name without the place of its files."""
        return self.name.partition(":")[0]

    def directory(self, shots: Path) -> Path:
        """Returns the directory of these states in the set `shots`."""
        return shots / "text" / f"{self.kind}-{self.fingerprint[:16] or 'plain'}-{self.max_length}"


def pack(states: Float32[np.ndarray, "l d"], mask: Bool[np.ndarray, "l"]) -> bytes:
    """Returns the record of one caption's states, without those of padding."""
    tokens = int(mask.sum())
    if not mask[:tokens].all():
        raise ValueError("a text encoder must put padding after the tokens")
    return states[:tokens].astype(ml_dtypes.bfloat16).tobytes()


def unpack(
    record: bytes, shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, "l d"], Bool[np.ndarray, "l"]]:
    """Returns the states and mask of one caption, with padding up to `shape` (l, d).

    Raises:
        ValueError: the record is damaged.
    """
    tokens = np.frombuffer(record, ml_dtypes.bfloat16).reshape(-1, shape[1])
    states, mask = np.zeros(shape, np.float32), np.zeros(shape[0], bool)
    states[: len(tokens)], mask[: len(tokens)] = tokens, True
    return states, mask


def find_encoder(shots: Path, text: TextSpec) -> Encoder | None:
    """Finds the stored states that fit a text encoder.

    Returns:
        None for the encoder "bytes" if its states are not stored. They are computed quickly.

    Raises:
        UserError: no stored states fit. The sentence says which states are stored.
    """
    stored = [
        jsonfiles.read(file, Encoder) for file in sorted(shots.glob(f"text/*/{ENCODER_FILE}"))
    ]
    kind = text.encoder.partition(":")[0]
    same = [encoder for encoder in stored if encoder.kind == kind]
    for encoder in same:
        is_same = text.fingerprint in ("", encoder.fingerprint)
        if is_same and (encoder.max_length, encoder.dim) == (text.max_length, text.dim):
            return encoder
    if kind == "bytes":
        return None
    have = ", ".join(
        f"{e.name} {e.max_length}x{e.dim} with the fingerprint {e.fingerprint}" for e in stored
    )
    raise UserError(
        f"{shots} holds no text states of {text.encoder} {text.max_length}x{text.dim}"
        f"{f' with the fingerprint {text.fingerprint}' if text.fingerprint else ''}, but of "
        f"{have or 'no encoder'}; run `stunet prepare` on it again with --text-encoder "
        f"{text.encoder} --text-max-length {text.max_length}, which only adds the states"
    )


class States:
    """Gives random access to the stored states of captions, by shard and number of the caption."""

    def __init__(self, shots: Path, encoder: Encoder, index: Index):
        """Opens the states.

        Raises:
            UserError: a file of states is missing or was cut short.
        """
        self.encoder = encoder
        directory = encoder.directory(shots)
        files = [directory / f"{part:06d}.array_record" for part in range(len(index.records))]
        self._shards = Shards(files)

    def read(self, shard: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns states float32 [l, d] and mask bool [l] of one caption.

        Raises:
            UserError: the record is damaged.
        """
        record = self._shards.read(shard, number)
        try:
            return unpack(record, self.encoder.shape)
        except ValueError as error:
            raise self._shards.damaged(shard, number, error) from error
