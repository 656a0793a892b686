"""Latents of low-resolution frames, which a super-resolution network on latents is given.

Such a network sees everything on the grid of the latents that it denoises. Low-resolution frames
are therefore enlarged to the size of the clip, by bilinear interpolation, and then encoded. In
training, the frames of the clip are shrunk first. Small frames that are encoded as they are would
give latents of a coarser grid, and so would show less.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from stunet.diffusion import upscaling
from stunet.nn.autoencoder import Autoencoder
from stunet.nn.sharding import none_in_use


def encode_enlarged(
    autoencoder: Autoencoder, low: Float32[np.ndarray, "n h2 w2 c"], factor: int, at_once: int = 4
) -> Float32[np.ndarray, "n y x z"]:
    """Returns the means of the latents of low-resolution frames that are enlarged first.

    Args:
        autoencoder: encodes the enlarged frames.
        low: low-resolution frames, -1..1.
        factor: factor by which rows and columns are enlarged.
        at_once: frames that the devices hold at once.
    """

    def encode(frames: np.ndarray) -> np.ndarray:
        with none_in_use():
            large = np.asarray(upscaling.enlarge(jnp.asarray(frames[None]), factor)[0])
        return autoencoder.encode(large, at_once).mean

    return np.concatenate([encode(low[i : i + at_once]) for i in range(0, len(low), at_once)])


def encode_blurred(
    autoencoder: Autoencoder, frames: Float32[np.ndarray, "n h w c"], factor: int, at_once: int = 4
) -> Float32[np.ndarray, "n y x z"]:
    """Returns the means of the latents of frames that are shrunk, and enlarged again.

    Args:
        autoencoder: see `encode_enlarged`.
        frames: frames, -1..1, whose rows and columns are multiples of `factor`.
        factor: factor by which frames are shrunk (`stunet.diffusion.upscaling.shrink`).
        at_once: see `encode_enlarged`.
    """
    low = upscaling.shrink(frames[None], factor)[0]
    return encode_enlarged(autoencoder, low, factor, at_once)
