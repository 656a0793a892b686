"""Input of a spatial super-resolution network (SSR): the noisy clip and a low-resolution clip.

In training, the low-resolution clip is a real clip made smaller. In sampling, another network has
generated it. Noise in the low-resolution clip hides this difference
(`stunet.diffusion.augmentation`). The network sees [J, C, S] on the channel axis:

    J   the noisy clip,
    C   the corrupted low-resolution clip, enlarged to the size of J,
    S   a channel that holds the augmentation level at every pixel.

All noise and levels are drawn inside the train step, from the step's random key.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from stunet.diffusion import augmentation


def shrink(
    clips: Float[Array | np.ndarray, "b t h w c"], factor: int
) -> Float[Array | np.ndarray, "b t h2 w2 c"]:
    """Makes clips smaller: averages each square of factor x factor pixels.

    NumPy arrays give NumPy arrays.

    Args:
        clips: clips whose rows and columns are multiples of `factor`.
        factor: h2 = h / factor, and w2 = w / factor.
    """
    b, t, h, w, c = clips.shape
    return clips.reshape(b, t, h // factor, factor, w // factor, factor, c).mean((3, 5))


def enlarge(clips: Float[Array, "b t h w c"], factor: int) -> Float[Array, "b t h2 w2 c"]:
    """Enlarges clips by bilinear interpolation between the centres of pixels.

    Beyond the centres of the outermost pixels, the values of these pixels are repeated.

    Super-resolution networks are usually given bilinear enlargements, because repeated pixels would
    have edges that no real clip has. If a clip's values are linear in rows and columns, `shrink`
    and then `enlarge` change only pixels within half a low-resolution pixel of the frame's edge.

    The result equals `jax.image.resize(..., "bilinear")`. If an axis is split over chips,
    `jax.image.resize` would gather the whole axis. In this function, each chip takes only one row
    of pixels from each neighbouring chip.

    Args:
        clips: any clips.
        factor: h2 = h * factor, and w2 = w * factor.
    """
    for axis in (2, 3):
        clips = _enlarge_axis(clips, axis, factor)
    return clips


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], factor: int, max_level: float
) -> tuple[Float[Array, "b t h2 w2 c"], Float[Array, "b"]]:
    """Shrinks each clip and corrupts the result at a random augmentation level.

    Args:
        key: random key for levels and noise.
        clips: clean clips, -1..1, whose rows and columns are multiples of `factor`.
        factor: h2 = h / factor, and w2 = w / factor.
        max_level: levels are uniform in 0..max_level.

    Returns:
        The corrupted low-resolution clips and their augmentation levels.
    """
    return augmentation.draw(key, shrink(clips, factor), max_level)


def network_input(
    x_t: Float[Array, "b t h w c"], low: Float[Array, "b t h2 w2 c"], level: Float[Array, "b"]
) -> Float[Array, "b t h w d"]:
    """Joins x_t, the enlarged low-resolution clips and the level along the channels.

    The result is the network's input, with d = 2 c + 1 channels. The module's docstring describes
    these channels.

    Args:
        x_t: noisy clips.
        low: corrupted low-resolution clips (`augmentation.corrupt`). Rows and columns are smaller
            than those of `x_t` by the same whole factor.
        level: augmentation level of each clip, 0..1.
    """
    factor = x_t.shape[2] // low.shape[2]
    plane = augmentation.plane(level, x_t)
    return jnp.concatenate([x_t, enlarge(low, factor), plane], axis=-1)


def _enlarge_axis(x: Array, axis: int, factor: int) -> Array:
    # For each new pixel, how far its centre lies from the centre of the old pixel around it, in
    # old pixels: -0.5..0.5.
    offset = (jnp.arange(factor, dtype=x.dtype) + 0.5) / factor - 0.5
    offset = offset.reshape(factor, *[1] * (x.ndim - axis - 1))
    before, here, after = (
        jnp.expand_dims(a, axis + 1) for a in (_neighbour(x, axis, -1), x, _neighbour(x, axis, 1))
    )
    # Written with differences, so that equal neighbours give exactly their value.
    y = here + jnp.maximum(offset, 0) * (after - here) + jnp.maximum(-offset, 0) * (before - here)
    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def _neighbour(x: Array, axis: int, step: int) -> Array:
    """Returns each pixel's neighbour along `axis`: the next (`step` 1) or the previous one (-1).

    A pixel at the frame's edge that has no such neighbour counts as its own neighbour.
    """
    # Padding one side and cutting off the other makes XLA's partitioner exchange only borders.
    widths = [(0, 0, 0)] * x.ndim
    widths[axis] = (-step, step, 0)
    moved = jax.lax.pad(x, jnp.zeros((), x.dtype), widths)
    position = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    last = x.shape[axis] - 1 if step > 0 else 0
    return jnp.where(position == last, x, moved)
