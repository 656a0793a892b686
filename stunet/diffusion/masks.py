"""Which part of a clip is given: Lumiere's one mechanism for image-to-video, in- and outpainting
and cinemagraphs (arXiv 2401.12945, section 4.1).

A conditioned network sees [J, C, M] on the channel axis: the noisy clip J, the given part C of the
clean clip (zero elsewhere) and the mask M, which is 1 where the clip is given. All masks are drawn
inside the train step, from its key.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

# Kind -> (box [h, w], first [t, 1, 1]) -> given [t, h, w], broadcast. `box` is True inside a random
# rectangle, `first` in frame 0.
MASKS: dict[str, Callable[[Array, Array], Array]] = {
    "text": lambda box, first: jnp.zeros_like(first),
    "image": lambda box, first: first,
    "inpaint": lambda box, first: ~box,
    "outpaint": lambda box, first: box,
    "cinemagraph": lambda box, first: first | ~box,
}


def network_input(
    x_t: Float[Array, "b t h w c"], clip: Float[Array, "b t h w c"], mask: Float[Array, "b t h w 1"]
) -> Float[Array, "b t h w d"]:
    """[J, C, M]: 2 c + 1 channels."""
    return jnp.concatenate([x_t, clip * mask, mask], axis=-1)


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], shares: Mapping[str, float]
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t h w 1"]]:
    """Draws a mask for each clip.

    Args:
        key: of the draw.
        clips: clean clips, -1..1.
        shares: for each key of MASKS, the share of clips that get such a mask; they sum to 1.

    Returns:
        The clips to be learnt and their masks. The clips are those given, but for cinemagraphs: of
        these, what lies outside the box stands still at its first frame, so that what the mask
        calls given is true.
    """
    b, t, h, w, _ = clips.shape
    kinds = tuple(MASKS)
    kind_key, box_key = jax.random.split(key)
    shares = jnp.array([shares[kind] for kind in kinds])
    drawn = jax.random.categorical(kind_key, jnp.log(shares), shape=(b,))
    boxes = jax.vmap(lambda k: _box(k, h, w))(jax.random.split(box_key, b))
    first = (jnp.arange(t) == 0)[:, None, None]

    given = jnp.zeros((b, t, h, w), bool)
    for index, kind in enumerate(kinds):
        mask = jax.vmap(
            lambda box, kind=kind: jnp.broadcast_to(MASKS[kind](box, first), (t, h, w))
        )(boxes)
        given = jnp.where((drawn == index)[:, None, None, None], mask, given)
    given = given[..., None]
    still = (drawn == kinds.index("cinemagraph"))[:, None, None, None, None] & given
    return jnp.where(still, clips[:, :1], clips), given.astype(clips.dtype)


def _box(key: PRNGKeyArray, h: int, w: int) -> Bool[Array, "h w"]:
    """True inside a rectangle of a quarter to three quarters of each side, anywhere inside."""
    size_key, place_key = jax.random.split(key)
    extent = jnp.array([h, w])
    size = extent * jax.random.uniform(size_key, (2,), minval=0.25, maxval=0.75)
    corner = (extent - size) * jax.random.uniform(place_key, (2,))
    rows, columns = jnp.arange(h) + 0.5, jnp.arange(w) + 0.5
    inside_rows = (rows >= corner[0]) & (rows < corner[0] + size[0])
    inside_columns = (columns >= corner[1]) & (columns < corner[1] + size[1])
    return inside_rows[:, None] & inside_columns[None, :]
