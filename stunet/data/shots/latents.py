"""Reads stored latents of shots: the pictures of each shot, encoded by an autoencoder.

latents/NAME/autoencoder.json    which autoencoder made the latents, and of how many pixels (`Made`)
latents/NAME/000000.safetensors  latents of part 0: `frames`, the number of pictures of each shot
                                 (0 where a filter dropped it), and `moments`, bfloat16
                                 [pictures, y, x, m]: means, and then standard deviations if the
                                 autoencoder gives any
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Int

from stunet import jsonfiles, tensorfiles
from stunet.data.shots import layout
from stunet.data.shots.layout import Index
from stunet.data.spec import AutoencoderSpec
from stunet.errors import UserError
from stunet.nn.autoencoder import Latents
from stunet.stores import mirror, objects
from stunet.stores.addresses import address

MADE_FILE = "autoencoder.json"
_Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


@dataclasses.dataclass(frozen=True)
class Made:
    """Notes how the latents in a directory were made.

    Pictures are cropped at their centre and scaled to one size, as for clips of pixels.

    Attributes:
        kind: name of the autoencoder's class in diffusers.
        fingerprint: digest of the autoencoder's config and weights.
        factor: rows, or columns, of a picture for each row or column of its latents.
        channels: channels of the latents.
        has_std: True if standard deviations are stored beside the means.
        height: rows of the pictures that were encoded.
        width: columns of the pictures that were encoded.
        config: keys of the autoencoder's config.json that determine the computation.
        low_factor: factor by which pictures were shrunk, and enlarged again, before they were
            encoded (`stunet.nn.autoencoder.enlarged`); 1 if they were encoded as they are.
    """

    kind: str
    fingerprint: str
    factor: _Size
    channels: _Size
    has_std: bool
    height: _Size
    width: _Size
    config: dict[str, Any]
    low_factor: _Size = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of a picture's means, and standard deviations if there are any."""
        moments = self.channels * (1 + self.has_std)
        return self.height // self.factor, self.width // self.factor, moments

    def directory(self, shots: Path) -> Path:
        """Returns the directory of these latents in the set `shots`."""
        size = f"{self.height}x{self.width}" + f"-low{self.low_factor}" * (self.low_factor > 1)
        return shots / "latents" / f"{self.kind}-{self.fingerprint}-{size}"

    def file(self, shots: Path, part: int) -> Path:
        """Returns the path of the file that holds the latents of a part."""
        return self.directory(shots) / f"{part:06d}.safetensors"

    def __str__(self) -> str:
        return (
            f"{_pixels(self.height, self.width, self.low_factor)} by the {self.kind} "
            f"{self.fingerprint}, with {self.channels} channels and a factor of {self.factor}"
        )


def _pixels(height: int, width: int, low_factor: int) -> str:
    """Names the pictures that were encoded."""
    return f"{height}x{width} pixels" + f", shrunk by {low_factor} first," * (low_factor > 1)


def find_latents(
    shots: Path, autoencoder: AutoencoderSpec, height: int, width: int, low_factor: int = 1
) -> Made:
    """Finds the stored latents of an autoencoder and of pictures of one size.

    Args:
        shots: directory of a set of shots.
        autoencoder: the autoencoder.
        height: rows of the pictures.
        width: columns of the pictures.
        low_factor: see `Made`.

    Raises:
        UserError: no such latents are stored, or those of several autoencoders. The sentence says
            which latents are stored.
    """
    stored = [jsonfiles.read(file, Made) for file in sorted(shots.glob(f"latents/*/{MADE_FILE}"))]
    fitting = [
        made
        for made in stored
        if autoencoder.fingerprint in ("", made.fingerprint)
        and (made.factor, made.channels) == (autoencoder.factor, autoencoder.channels)
        and (made.height, made.width, made.low_factor) == (height, width, low_factor)
    ]
    if len(fitting) == 1:
        return fitting[0]
    pixels = _pixels(height, width, low_factor)
    if fitting:
        raise UserError(
            f"{shots} holds latents of {pixels} by several autoencoders; set "
            f"autoencoder.fingerprint to one of {', '.join(made.fingerprint for made in fitting)}"
        )
    wanted = f" {autoencoder.fingerprint}" if autoencoder.fingerprint else ""
    remedy = "change data.height, data.width and autoencoder.*, or "
    options = "--latents and --latents-size"
    if low_factor > 1:
        remedy, options = "change upscale.factor, or ", f"{options} and --latents-low {low_factor}"
    raise UserError(
        f"{shots} holds no latents of {pixels} by the autoencoder{wanted}, with "
        f"{autoencoder.channels} channels and a factor of {autoencoder.factor}, but "
        f"{'; '.join(map(str, stored)) or 'none at all'}; {remedy}run `stunet prepare` on it again "
        f"with {options}, which only adds latents"
    )


class StoredLatents:
    """Gives random access to the latents of pictures. Several threads may read at once."""

    def __init__(self, shots: Path, made: Made, index: Index):
        """Checks that there are latents of all shots that no filter drops.

        Raises:
            UserError: latents of a shot are missing, or a file is damaged.
        """
        self.made = made
        # Unlike shots, latents are not read in a bucket.
        mirror.pull(shots, only=layout.holds_latents)
        parts = range(len(index.records))
        self._files = [made.file(shots, part) for part in parts]
        ends = np.cumsum(index.records)
        with ThreadPoolExecutor(16) as pool:
            counts = list(pool.map(lambda part: stored_counts(shots, made, part), parts))
        self._firsts = []
        for part, count in enumerate(counts):
            wanted = index.frames[ends[part] - index.records[part] : ends[part]]
            if not covers(count, wanted):
                raise UserError(
                    f"{self._files[part]} is missing, or lacks latents of shots; run `stunet "
                    "prepare` again with --latents and --latents-size, which only adds latents"
                )
            self._firsts.append(np.cumsum(count, dtype=np.int64) - count)

    def read(self, part: int, shot: int, pictures: Sequence[int]) -> Latents:
        """Returns the latents of some pictures of a shot.

        Args:
            part: number of the part.
            shot: number of the shot in its part.
            pictures: numbers of the pictures in the shot.

        Raises:
            UserError: the file is damaged.
        """
        first = int(self._firsts[part][shot])
        with tensorfiles.tensor(self._files[part], "moments") as stored:
            moments = [stored[first + number : first + number + 1] for number in pictures]
        moments = np.concatenate(moments).astype(np.float32)
        z = self.made.channels
        return Latents(moments[..., :z], moments[..., z:] if self.made.has_std else 0 * moments)


def stored_counts(shots: Path, made: Made, part: int) -> Int[np.ndarray, "n"] | None:
    """Returns the number of pictures of each shot of a part whose latents are stored.

    Returns:
        None if there is no file of latents of the part.

    Raises:
        UserError: the file is damaged.
    """
    file = made.file(shots, part)
    if not file.is_file():
        return None
    with tensorfiles.tensor(file, "frames") as frames:
        counts = frames[:]
    _check(file, made, counts, tensorfiles.headers(file))
    return counts


def counts_in_bucket(file: Path, made: Made) -> Int[np.ndarray, "n"]:
    """Does what `stored_counts` does for a file that is in a bucket. Reads its beginning alone.

    Args:
        file: place of the file's copy, which need not be there (`addresses.local`).
        made: which latents the file holds.
    """
    try:
        with objects.opened(address(file)) as stream:
            headers, counts = tensorfiles.read_from(stream, "frames")
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    _check(file, made, counts, headers)
    return counts


def _check(
    file: Path, made: Made, counts: np.ndarray, headers: Mapping[str, tensorfiles.Header]
) -> None:
    if headers.get("moments") != ("BF16", (int(counts.sum()), *made.shape)):
        raise _damaged(file, f"it does not hold latents of {made}")


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} is damaged: {reason}; remove it and run the same `stunet prepare` again, which "
        "makes it again"
    )


def covers(found: Int[np.ndarray, "n"] | None, wanted: Int[np.ndarray, "n"]) -> bool:
    """Tells whether the latents of all wanted pictures are stored.

    Args:
        found: number of pictures of each shot of a part that are stored; None if none are.
        wanted: number of pictures of each shot; 0 for a shot that a filter drops.
    """
    if found is None or found.shape != wanted.shape:
        return False
    return np.array_equal(found * (wanted > 0), wanted)
