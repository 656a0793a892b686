"""Encodes the pictures of a set of shots with an autoencoder, in a pass after the videos.

The pass needs the shards alone. Another autoencoder, or another size, needs no videos.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from tqdm import tqdm

from stunet import tensorfiles
from stunet.data.shots.codecs import cut_out
from stunet.data.shots.crops import crop
from stunet.data.shots.latents import MADE_FILE, Made, counts_in_bucket, covers, stored_counts
from stunet.data.shots.layout import Index, Spec, shard_file
from stunet.data.shots.records import Shot, unpack
from stunet.data.shots.shards import Shards
from stunet.errors import UserError
from stunet.files import atomic, full_disk_explained
from stunet.nn.autoencoder import Autoencoder
from stunet.nn.autoencoder.enlarged import encode_blurred
from stunet.stores import large
from stunet.stores.addresses import address

# Pictures of a shot that are decoded at once. Most codecs' groups divide it.
_DECODED = 64
# Pictures that each device encodes at once.
_ON_EACH_DEVICE = 4


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Says with which autoencoder, and at which size, pictures are encoded.

    Attributes:
        autoencoder: encodes the pictures.
        height: rows of the pictures that are encoded.
        width: columns of the pictures that are encoded.
        low_factor: factor by which pictures are shrunk, and enlarged again, before they are
            encoded, for a network that enlarges clips; 1 encodes them as they are.
    """

    autoencoder: Autoencoder
    height: int
    width: int
    low_factor: int = 1

    def made(self) -> Made:
        """Returns the notes about these latents.

        Raises:
            UserError: the autoencoder cannot encode pictures of this size.
        """
        of = self.autoencoder.architecture
        if self.height % of.factor or self.width % of.factor:
            raise UserError(
                f"latents of {self.height}x{self.width} pixels cannot be made: the autoencoder "
                f"takes multiples of {of.factor} rows and columns"
            )
        if self.height % self.low_factor or self.width % self.low_factor:
            raise UserError(
                f"pictures of {self.height}x{self.width} pixels cannot be shrunk by "
                f"{self.low_factor}; give --latents-low a number that divides both"
            )
        if of.channels not in (1, 3):
            raise UserError(
                f"the autoencoder encodes pictures of {of.channels} channels, and shots are grey "
                "or RGB, 1 or 3"
            )
        return Made(
            kind=self.autoencoder.kind,
            fingerprint=self.autoencoder.fingerprint,
            factor=of.factor,
            channels=of.latent_channels,
            # Of what the network is given there are means alone, as in sampling.
            has_std=of.has_std and self.low_factor == 1,
            height=self.height,
            width=self.width,
            config=self.autoencoder.config,
            low_factor=self.low_factor,
        )


def write_latents(
    output: Path, spec: Spec, index: Index, encoding: Encoding, progress: bool = True
) -> Made:
    """Writes the latents of all shots that have none yet, one file for each shard.

    A file appears whole or not at all. Its bytes depend on the shots that no filter drops and on
    the autoencoder.

    Args:
        output: directory of the set of shots.
        spec: how the shots were made.
        index: the shots.
        encoding: which latents to write.
        progress: True shows a bar.

    Raises:
        UserError: the autoencoder cannot encode pictures of this size, a shard or a file of latents
            is damaged, or the disk is full.
    """
    made = encoding.made()
    begins = np.cumsum(index.records) - index.records
    wanted = [
        index.frames[begin : begin + count]
        for begin, count in zip(begins, index.records, strict=True)
    ]
    found = _counts(output, made, len(wanted))
    missing = [part for part, frames in enumerate(wanted) if not covers(found[part], frames)]
    shards = Shards([shard_file(output, part) for part in range(len(wanted))], index.bytes.tolist())
    total = sum(int(wanted[part].sum()) for part in missing)
    with (
        full_disk_explained(output, "the latents that are done stay", ", and it goes on"),
        tqdm(total=total, unit="frame", disable=None if progress else True) as bar,
    ):
        with atomic(made.directory(output) / MADE_FILE) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(made), indent=1) + "\n")
        for part in missing:
            pictures = _pictures(shards, part, wanted[part], spec, encoding)
            moments = _moments(encoding, made, pictures, bar)
            _write(made.file(output, part), made, wanted[part], moments)
            large.hand_over(made.file(output, part))
    return made


def _counts(output: Path, made: Made, parts: int) -> list[np.ndarray | None]:
    """Returns the number of pictures of each shot whose latents are stored, for each part."""
    if not address(output):
        return [stored_counts(output, made, part) for part in range(parts)]
    # Copies on this machine may be older than the bucket.
    there = large.sizes(output, f"latents/{made.directory(output).name}/*.safetensors")
    files = [made.file(output, part) for part in range(parts)]
    return [counts_in_bucket(file, made) if file in there else None for file in files]


def _write(file: Path, made: Made, frames: np.ndarray, moments: Iterator[np.ndarray]) -> None:
    headers = {
        "frames": tensorfiles.Header("I32", frames.shape),
        "moments": tensorfiles.Header("BF16", (int(frames.sum()), *made.shape)),
    }
    with atomic(file) as partial, tensorfiles.Writer(partial, headers) as writer:
        writer.add("frames", frames)
        writer.add_parts("moments", moments)


def _pictures(
    shards: Shards, part: int, frames: np.ndarray, spec: Spec, encoding: Encoding
) -> Iterator[np.ndarray]:
    """Yields the pictures of a part's shots, uint8 [n, h, w, c], some of a shot at a time."""
    codec, channels = spec.make_codec(), encoding.autoencoder.architecture.channels
    for number in np.flatnonzero(frames).tolist():
        record = shards.read(part, number)
        try:
            shot: Shot = unpack(record)
            if len(shot.packets) != frames[number]:
                raise ValueError(f"it holds {len(shot.packets)} pictures")
            box = crop(shot.height, shot.width, encoding.height, encoding.width)
            for begin in range(0, len(shot.packets), _DECODED):
                some = range(begin, min(begin + _DECODED, len(shot.packets)))
                decoded = codec.decode(shot.packets, some, shot.height, shot.width)
                yield cut_out(decoded, box, encoding.height, encoding.width, channels)
        except (ValueError, OSError) as error:
            raise shards.damaged(part, number, error) from error


def _moments(
    encoding: Encoding, made: Made, pictures: Iterator[np.ndarray], bar: tqdm
) -> Iterator[np.ndarray]:
    """Yields the moments of pictures, bfloat16 [n, y, x, m].

    Every call of the network has the same shape, so that nothing is compiled again, and a picture's
    latents do not depend on its neighbours.
    """
    at_once = _ON_EACH_DEVICE * jax.local_device_count()
    for some in pictures:
        clip = some.astype(np.float32) / 127.5 - 1
        filled = np.pad(clip, ((0, -len(clip) % at_once), *[(0, 0)] * 3))
        if encoding.low_factor > 1:
            moments = [encode_blurred(encoding.autoencoder, filled, encoding.low_factor, at_once)]
        else:
            latents = encoding.autoencoder.encode(filled, at_once)
            moments = latents if made.has_std else latents[:1]
        yield np.concatenate(moments, axis=-1)[: len(clip)].astype(ml_dtypes.bfloat16)
        bar.update(len(clip))
