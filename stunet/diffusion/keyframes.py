"""Input of a temporal super-resolution network (TSR): corrupted keyframes beside the noisy clip.

The network fills in the frames between keyframes that lie `stride` frames apart. Its input combines
two methods. A clip and a mask tell the network which frames are given, as in Lumiere
(`stunet.diffusion.masks`). Noise-conditioning augmentation corrupts the given frames
(`stunet.diffusion.augmentation`). The network sees [J, C, M, S] on the channel axis:

    J   the noisy clip,
    C   the corrupted keyframes in their places, zero elsewhere,
    M   the mask, 1 in the keyframes' places and 0 elsewhere,
    S   a channel that holds the augmentation level at every pixel.

Make-A-Video's interpolation network takes zero-padded frames and a mask in the same way (arXiv
2209.14792, section 3.3). The augmentation is Imagen Video's (arXiv 2210.02303, section 2.5).

The first and the last frame of a clip are keyframes, so a clip of K keyframes has
(K - 1) * stride + 1 frames. No frames follow the last keyframe, because the network would have to
extrapolate such frames. The errors of extrapolation would hide how well a cascade interpolates.

The product of the network's temporal factors must divide the number of frames. With a product of
2, an odd stride and an even K give a valid number, such as 16 = (4 - 1) * 5 + 1.

A clip of two keyframes is a window: [keyframe, stride - 1 frames, next keyframe]. Neighbouring
windows share the keyframe between them. In a clip of more keyframes, the same network sees all
keyframes at once. The functions here serve both cases.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from stunet.diffusion import augmentation


def take(
    clips: Float[Array | np.ndarray, "b t h w c"], stride: int
) -> Float[Array | np.ndarray, "b k h w c"]:
    """Returns the keyframes of clips: every `stride`-th frame, from the first to the last.

    NumPy arrays give NumPy arrays.

    Args:
        clips: clips of (k - 1) * stride + 1 frames.
        stride: frames from one keyframe to the next.
    """
    return clips[:, ::stride]


def place(
    keyframes: Float[Array, "b k h w c"], stride: int
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t h w 1"]]:
    """Puts keyframes in their places in clips of (k - 1) * stride + 1 frames.

    Returns:
        The clips, which are zero in all other frames, and the mask, which is 1 in the keyframes'
        places and 0 elsewhere.
    """

    def spread(x: Array) -> Array:
        widths = [(0, 0, 0)] * x.ndim
        widths[1] = (0, 0, stride - 1)
        return jax.lax.pad(x, jnp.zeros((), x.dtype), widths)

    return spread(keyframes), spread(jnp.ones_like(keyframes[..., :1]))


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], stride: int, max_level: float
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b"]]:
    """Takes the keyframes of each clip and corrupts them at a random augmentation level.

    Args:
        key: random key for levels and noise.
        clips: clean clips, -1..1, of (k - 1) * stride + 1 frames.
        stride: frames from one keyframe to the next.
        max_level: levels are uniform in 0..max_level.

    Returns:
        The corrupted keyframes and the augmentation level of each clip.
    """
    return augmentation.draw(key, take(clips, stride), max_level)


def network_input(
    x_t: Float[Array, "b t h w c"], keyframes: Float[Array, "b k h w c"], level: Float[Array, "b"]
) -> Float[Array, "b t h w d"]:
    """Joins x_t, the keyframes in their places, their mask and the level along the channels.

    The result is the network's input, with d = 2 c + 2 channels. The module's docstring describes
    these channels.

    Args:
        x_t: noisy clips.
        keyframes: corrupted keyframes (`augmentation.corrupt`), at least 2 for each clip.
        level: augmentation level of each clip, 0..1.
    """
    stride = (x_t.shape[1] - 1) // (keyframes.shape[1] - 1)
    placed, mask = place(keyframes, stride)
    return jnp.concatenate([x_t, placed, mask, augmentation.plane(level, x_t)], axis=-1)
