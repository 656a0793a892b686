"""What a temporal super-resolution network (TSR) is given: keyframes, corrupted on purpose.

It fills in the frames between keyframes that lie `stride` frames apart. It is conditioned as
Lumiere conditions on a part of the clip (`stunet.diffusion.masks`), and its keyframes are augmented
as the low-resolution clips of spatial super-resolution are (`stunet.diffusion.augmentation`), of
which this is the counterpart in time: the network sees [J, C, M, S] on the channel axis, the noisy
clip J, the corrupted keyframes C at their places (zero elsewhere), the mask M of these places and a
plane S of the augmentation level. Make-A-Video's interpolation network takes zero-padded frames
and a mask in the same way (arXiv 2209.14792, section 3.3), Imagen Video's the augmentation (arXiv
2210.02303, section 2.5).

The first and the last frame of a clip are keyframes, so that one of K keyframes has
(K - 1) * stride + 1 frames. There is no tail after the last keyframe to extrapolate, which would
hold against a cascade what is no fault of interpolation. Temporal factors must divide that number:
with a factor of 2, odd strides and even K do, as 16 = (4 - 1) * 5 + 1.

A clip of two keyframes is a window, [keyframe, stride - 1 frames, next keyframe]; neighbouring
windows share the keyframe between them. With K as in the whole clip, the same network sees all
keyframes at once. Nothing here tells the two apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from stunet.diffusion import augmentation


def take(
    clips: Float[Array | np.ndarray, "b t h w c"], stride: int
) -> Float[Array | np.ndarray, "b k h w c"]:
    """The keyframes of clips whose first and last frame are ones. NumPy's arrays stay NumPy's."""
    return clips[:, ::stride]


def place(
    keyframes: Float[Array, "b k h w c"], stride: int
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t h w 1"]]:
    """Clips of (k - 1) * stride + 1 frames that are zero but for the keyframes, and their mask."""

    def spread(x: Array) -> Array:
        widths = [(0, 0, 0)] * x.ndim
        widths[1] = (0, 0, stride - 1)
        return jax.lax.pad(x, jnp.zeros((), x.dtype), widths)

    return spread(keyframes), spread(jnp.ones_like(keyframes[..., :1]))


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], stride: int, max_level: float
) -> tuple[Float[Array, "b k h w c"], Float[Array, "b"]]:
    """The corrupted keyframes of each clip, and its augmentation level.

    Args:
        key: of the draw.
        clips: clean clips, -1..1; the first and the last frame are keyframes.
        stride: frames from one keyframe to the next.
        max_level: levels are uniform in 0..max_level.
    """
    return augmentation.draw(key, take(clips, stride), max_level)


def network_input(
    x_t: Float[Array, "b t h w c"], keyframes: Float[Array, "b k h w c"], level: Float[Array, "b"]
) -> Float[Array, "b t h w d"]:
    """[J, C, M, S]: 2 c + 2 channels.

    Args:
        x_t: noisy clips.
        keyframes: as `augmentation.corrupt` gives them, at least 2 of a clip.
        level: their augmentation levels, 0..1.
    """
    stride = (x_t.shape[1] - 1) // (keyframes.shape[1] - 1)
    given = place(keyframes, stride)
    return jnp.concatenate([x_t, *given, augmentation.plane(level, x_t)], axis=-1)
