"""Says what the clips of a network are made of: pixels, or the latents of an autoencoder.

Everything outside the network deals with frames, which are pixels in -1..1. The two kinds of space
have the same methods, which turn frames into the clips that the network sees, and back.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from stunet.data.spec import AutoencoderSpec, ClipSpec, make_autoencoder
from stunet.errors import UserError
from stunet.nn.autoencoder import Autoencoder
from stunet.nn.autoencoder.enlarged import encode_enlarged


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The network sees frames as they are."""

    # Type of the clips in a batch.
    dtype = np.dtype(np.uint8)

    def __str__(self) -> str:
        return "pixels"

    def matches(self, other: "Space") -> bool:
        """Tells whether clips of this space mean the same in another one."""
        return isinstance(other, Pixels)

    def clip(self, frames: ClipSpec) -> ClipSpec:
        """Returns the shape of the network's clips."""
        return frames

    def load(self) -> None:
        """Reads what `from_frames` and `to_frames` need, so that mistakes show early."""

    def from_frames(self, frames: Float[np.ndarray, "n t h w c"]) -> Float[np.ndarray, "n t h w c"]:
        """Returns the network's clips of some frames in -1..1."""
        return frames

    def from_low(
        self, frames: Float[np.ndarray, "n t h2 w2 c"], factor: int
    ) -> Float[np.ndarray, "n t h2 w2 c"]:
        """Returns what a network that enlarges frames by a factor is given of them."""
        return frames

    def from_mask(self, given: Bool[np.ndarray, "n t h w 1"]) -> Bool[np.ndarray, "n t h w 1"]:
        """Returns which values of the network's clips are given, for a mask of given pixels."""
        return given

    def to_frames(self, clips: Float[np.ndarray, "n t h w c"]) -> Float[np.ndarray, "n t h w c"]:
        """Returns the frames, in -1..1, of clips that the network made."""
        return np.clip(clips, -1, 1)

    def estimate(self, clips: Any) -> Any:
        """Returns frames, in about -1..1, to show while sampling goes on; for `np.asarray`."""
        return clips


@dataclasses.dataclass(frozen=True)
class Latents:
    """The network sees the latents of each frame.

    Attributes:
        autoencoder: encodes and decodes frames.
    """

    autoencoder: AutoencoderSpec

    dtype = np.dtype(np.float32)

    def __str__(self) -> str:
        return f"latents of {self.autoencoder.path} {self.autoencoder.fingerprint}"

    def matches(self, other: "Space") -> bool:
        """Tells whether clips of this space mean the same in another one."""
        return isinstance(other, Latents) and self.autoencoder.matches(other.autoencoder)

    def clip(self, frames: ClipSpec) -> ClipSpec:
        """Returns the shape of the latents of clips of a shape."""
        of = self.autoencoder
        height, width = frames.height // of.factor, frames.width // of.factor
        return dataclasses.replace(frames, height=height, width=width, channels=of.channels)

    def load(self) -> Autoencoder:
        """Reads the autoencoder, at the first call.

        Raises:
            UserError: the autoencoder cannot be read, or is not the one of the run.
        """
        return make_autoencoder(self.autoencoder)

    def from_frames(self, frames: Float32[np.ndarray, "n t h w c"]) -> np.ndarray:
        """Returns the means of the latents, float32 [n, t, y, x, z], of frames in -1..1."""
        return self.load().encode(frames).mean

    def from_low(self, frames: Float32[np.ndarray, "n t h2 w2 c"], factor: int) -> np.ndarray:
        """Returns the means of the latents, float32 [n, t, y, x, z], of frames that are enlarged.

        A network that enlarges frames by a factor is given these.
        """
        rows = frames.reshape(-1, *frames.shape[2:])
        means = encode_enlarged(self.load(), rows, factor)
        return means.reshape(*frames.shape[:2], *means.shape[1:])

    def from_mask(self, given: Bool[np.ndarray, "n t h w 1"]) -> Bool[np.ndarray, "n t y x 1"]:
        """Returns which latents are given, for a mask of given pixels.

        The mask is resized by nearest neighbour, as the inpainting pipelines of diffusers do:
        latents are given where the first of their pixels is.

        Raises:
            UserError: pixels are to be made, but so few that all latents are given.
        """
        factor = self.autoencoder.factor
        of_latents = given[..., ::factor, ::factor, :]
        made = ~given.all(axis=(1, 2, 3, 4))
        if (made & of_latents.all(axis=(1, 2, 3, 4))).any():
            raise UserError(
                f"the part to make misses all latents, which stand for {factor}x{factor} pixels "
                "each; make it larger"
            )
        return of_latents

    def to_frames(self, clips: Float32[np.ndarray, "n t y x z"]) -> np.ndarray:
        """Returns the frames, float32 [n, t, h, w, c] in -1..1, that latents decode to."""
        return np.clip(self.load().decode(np.asarray(clips)), -1, 1)

    def estimate(self, clips: Any) -> "Undecoded":
        """Returns frames to show while sampling goes on, which `np.asarray` decodes."""
        return Undecoded(self, clips)


Space = Pixels | Latents


@dataclasses.dataclass(frozen=True, eq=False)
class Undecoded:
    """Latents that NumPy decodes where it needs an array. Most steps of sampling show no frames.

    Attributes:
        space: decodes the latents.
        latents: float32 [n, t, y, x, z].
    """

    space: Latents
    latents: Any

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.space.to_frames(np.asarray(self.latents)), dtype)
