"""What a spatial super-resolution network is given: a low-resolution clip, corrupted on purpose
(`stunet.diffusion.augmentation`), since it runs on clips that another network has generated.

The network sees [J, C, S] on the channel axis, as many channels as a mask-conditioned one does: the
noisy clip J, the corrupted low-resolution clip C, enlarged to the size of J, and a plane S of the
augmentation level. Everything random is drawn inside the train step, from its key.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from stunet.diffusion import augmentation


def shrink(
    clips: Float[Array | np.ndarray, "b t h w c"], factor: int
) -> Float[Array | np.ndarray, "b t h2 w2 c"]:
    """Averages factor x factor pixels; rows and columns are multiples of `factor`.

    NumPy's arrays stay NumPy's.
    """
    b, t, h, w, c = clips.shape
    return clips.reshape(b, t, h // factor, factor, w // factor, factor, c).mean((3, 5))


def enlarge(clips: Float[Array, "b t h w c"], factor: int) -> Float[Array, "b t h2 w2 c"]:
    """Bilinear interpolation between the centres of pixels; beyond the outermost, the nearest.

    Bilinear, as super-resolution networks are usually given it: repeated pixels would have edges
    that no clip has. What is linear in rows and columns comes back from `shrink` unchanged, but for
    half a low-resolution pixel at the border.

    Equal to `jax.image.resize(..., "bilinear")`, which however gathers an axis that is split over
    chips: here each takes one row of its neighbours.
    """
    for axis in (2, 3):
        clips = _enlarge_axis(clips, axis, factor)
    return clips


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], factor: int, max_level: float
) -> tuple[Float[Array, "b t h2 w2 c"], Float[Array, "b"]]:
    """The corrupted low-resolution version of each clip, and its augmentation level.

    Args:
        key: of the draw.
        clips: clean clips, -1..1.
        factor: of the sides; divides rows and columns.
        max_level: levels are uniform in 0..max_level.
    """
    return augmentation.draw(key, shrink(clips, factor), max_level)


def network_input(
    x_t: Float[Array, "b t h w c"], low: Float[Array, "b t h2 w2 c"], level: Float[Array, "b"]
) -> Float[Array, "b t h w d"]:
    """[J, C, S]: 2 c + 1 channels.

    Args:
        x_t: noisy clips.
        low: low-resolution clips as `augmentation.corrupt` gives them; both sides smaller by one
            whole factor.
        level: their augmentation levels, 0..1.
    """
    factor = x_t.shape[2] // low.shape[2]
    plane = augmentation.plane(level, x_t)
    return jnp.concatenate([x_t, enlarge(low, factor), plane], axis=-1)


def _enlarge_axis(x: Array, axis: int, factor: int) -> Array:
    # Of each new pixel's centre from that of the pixel it lies in, -0.5..0.5 pixels.
    offset = (jnp.arange(factor, dtype=x.dtype) + 0.5) / factor - 0.5
    offset = offset.reshape(factor, *[1] * (x.ndim - axis - 1))
    before, here, after = (
        jnp.expand_dims(a, axis + 1) for a in (_neighbour(x, axis, -1), x, _neighbour(x, axis, 1))
    )
    # As differences, so that where neighbours are equal the result equals them exactly.
    y = here + jnp.maximum(offset, 0) * (after - here) + jnp.maximum(-offset, 0) * (before - here)
    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def _neighbour(x: Array, axis: int, step: int) -> Array:
    """The next (`step` 1) or previous (-1) pixel of each; of the last one, itself."""
    # A pad of one side, cut off the other, is what XLA's partitioner exchanges borders for.
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (-step, step, 0)
    moved = jax.lax.pad(x, jnp.zeros((), x.dtype), widths)
    position = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    last = x.shape[axis] - 1 if step > 0 else 0
    return jnp.where(position == last, x, moved)
