"""Draws conditioning masks, which mark the part of a clip that is given to the network.

There is one kind of mask for each task: image-to-video, inpainting, outpainting and cinemagraphs
(Lumiere, arXiv 2401.12945, section 4.1). A conditioned network sees [J, C, M] on the channel axis:

    J   the noisy clip,
    C   the given part of the clean clip, zero elsewhere,
    M   the mask, 1 where the clip is given and 0 elsewhere.

All masks are drawn inside the train step, from the step's random key.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

# For each kind of mask, (box [h, w], first [t, 1, 1]) -> a mask that broadcasts to [t, h, w], True
# where the clip is given. `box` is True inside a random rectangle, `first` in frame 0.
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
    """Joins x_t, the given part of the clean clips and the mask along the channels.

    The result is the network's input, with d = 2 c + 1 channels. The module's docstring describes
    these channels.

    Args:
        x_t: noisy clips.
        clip: clean clips, -1..1; only the part inside the mask is used.
        mask: 1 where the clip is given and 0 elsewhere.
    """
    return jnp.concatenate([x_t, clip * mask, mask], axis=-1)


# Kinds that give the first frame.
_OF_FIRST_FRAME = ("image", "cinemagraph")


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], probabilities: Mapping[str, float]
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t h w 1"]]:
    """Draws a random mask for each clip.

    Args:
        key: random key.
        clips: clean clips, -1..1.
        probabilities: probability of each kind of mask, by the keys of `MASKS`; the sum is 1.

    Returns:
        The clips to train on and their masks. The mask of a cinemagraph is 1 in the whole
        first frame, and outside a random box in the other frames. Outside the box a cinemagraph
        stands still, so there every frame gets the pixels of the first frame. All other clips are
        returned unchanged. Of a picture (a clip of one frame), nothing is given instead of the
        first frame, which would be all of it.
    """
    b, t, h, w, _ = clips.shape
    kinds = tuple(MASKS)
    if t == 1:
        told = sum(probabilities[kind] for kind in _OF_FIRST_FRAME)
        nothing = dict.fromkeys(_OF_FIRST_FRAME, 0.0)
        probabilities = {**probabilities, **nothing, "text": probabilities["text"] + told}
    kind_key, box_key = jax.random.split(key)
    logits = jnp.log(jnp.array([probabilities[kind] for kind in kinds]))
    drawn = jax.random.categorical(kind_key, logits, shape=(b,))
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
    """Draws a random rectangle in the frame, and returns True inside it.

    The rectangle's sides are a quarter to three quarters as long as the frame's sides.
    """
    size_key, place_key = jax.random.split(key)
    extent = jnp.array([h, w])
    size = extent * jax.random.uniform(size_key, (2,), minval=0.25, maxval=0.75)
    corner = (extent - size) * jax.random.uniform(place_key, (2,))
    rows, columns = jnp.arange(h) + 0.5, jnp.arange(w) + 0.5
    inside_rows = (rows >= corner[0]) & (rows < corner[0] + size[0])
    inside_columns = (columns >= corner[1]) & (columns < corner[1] + size[1])
    return inside_rows[:, None] & inside_columns[None, :]
