"""Encodes the captions of a set of shots, once each in a shard, in a second pass.

The pass needs the shards' manifests alone. Another encoder needs no decoding of videos.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from array_record.python import array_record_module

from stunet.data.shots.states import ENCODER_FILE, Encoder, pack
from stunet.files import atomic, full_disk_explained
from stunet.prepare.shards import read_manifest
from stunet.stores import large

# Captions in each call of the text encoder.
_BATCH_SIZE = 64


class EncodeText(Protocol):
    """Encodes n captions to states float32 [n, l, d] and a mask bool [n, l]."""

    max_length: int
    dim: int
    fingerprint: str

    def __call__(self, captions: Sequence[str], /) -> tuple[np.ndarray, np.ndarray]: ...

    def is_cut(self, caption: str) -> bool:
        """Tells whether a caption is so long that the encoder cuts it."""


def write_states(output: Path, parts: int, name: str, encode_text: EncodeText) -> list[str]:
    """Writes the text states of all shards that have none of this encoder yet.

    Args:
        output: directory of the set of shots.
        parts: number of shards.
        name: name of the text encoder.
        encode_text: the encoder.

    Returns:
        Notes for the user: how many captions the encoder cut.
    """
    encoder = Encoder(name, encode_text.fingerprint, encode_text.max_length, encode_text.dim)
    directory, cut = encoder.directory(output), []
    with full_disk_explained(output, "the states that are done stay", ", and it goes on"):
        with atomic(directory / ENCODER_FILE) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(encoder)) + "\n")
        there = large.sizes(output, f"text/{directory.name}/*.array_record")
        for part in range(parts):
            file = directory / f"{part:06d}.array_record"
            if file not in there:
                captions = read_manifest(output, part).captions
                _write(file, captions, encode_text)
                large.hand_over(file)
                cut += filter(encode_text.is_cut, captions)
    what = "captions are longer than the text encoder takes, and their ends are cut off"
    return [f"{len(cut):,} {what}, such as {cut[0]!r}"] if cut else []


def _write(file: Path, captions: Sequence[str], encode_text: EncodeText) -> None:
    with atomic(file) as partial:
        writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        try:
            for begin in range(0, len(captions), _BATCH_SIZE):
                encoded = encode_text(captions[begin : begin + _BATCH_SIZE])
                for states, mask in zip(*encoded, strict=True):
                    writer.write(pack(states, mask))
        finally:
            writer.close()
