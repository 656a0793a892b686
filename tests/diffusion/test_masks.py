"""Masks have the shapes of their tasks, and say truly which part of the clip is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion import masks

CLIPS = jax.random.uniform(jax.random.key(1), (64, 4, 16, 12, 3), minval=-1, maxval=1)


def drawn(**probabilities):
    probabilities = dict.fromkeys(masks.MASKS, 0.0) | probabilities
    clips, mask = masks.draw(jax.random.key(0), CLIPS, probabilities)
    return np.asarray(clips), np.asarray(mask)


def test_text_gives_nothing_and_image_the_first_frame():
    clips, mask = drawn(text=1.0)
    assert not mask.any()
    clips, mask = drawn(image=1.0)
    assert mask[:, 0].all()
    assert not mask[:, 1:].any()
    np.testing.assert_array_equal(clips, CLIPS)


@pytest.mark.parametrize("kind", ["inpaint", "outpaint"])
def test_painting_masks_are_rectangles_that_do_not_move(kind):
    clips, mask = drawn(**{kind: 1.0})
    np.testing.assert_array_equal(clips, CLIPS)
    assert (mask == mask[:, :1]).all()
    box = mask[:, 0, :, :, 0] == (kind == "outpaint")
    rows, columns = box.any(2), box.any(1)
    assert (box == rows[:, :, None] & columns[:, None, :]).all()
    for side, extent in ((rows, 16), (columns, 12)):
        count = side.sum(1)
        # A quarter to three quarters of the extent, to within a pixel.
        assert (count >= extent / 4 - 1).all()
        assert (count <= 3 * extent / 4 + 1).all()
        assert (np.abs(np.diff(np.pad(side, ((0, 0), (1, 1))).astype(int))).sum(1) == 2).all()


def test_cinemagraphs_stand_still_where_they_are_given():
    clips, mask = drawn(cinemagraph=1.0)
    assert mask[:, 0].all()
    assert 0 < mask[:, 1:].mean() < 1
    given = mask[..., 0] == 1
    first = np.broadcast_to(clips[:, :1], clips.shape)
    np.testing.assert_array_equal(clips[given], first[given])
    np.testing.assert_array_equal(clips[~given], np.asarray(CLIPS)[~given])


def test_kinds_are_drawn_with_their_probabilities():
    clips = jnp.zeros((4000, 2, 4, 4, 1))
    probabilities = dict.fromkeys(masks.MASKS, 0.0) | dict(text=0.25, image=0.75)
    _, mask = masks.draw(jax.random.key(3), clips, probabilities)
    assert abs(float(mask[:, 0].mean()) - 0.75) < 0.03


def test_network_input_is_noisy_clip_given_part_and_mask():
    x_t, mask = jnp.ones_like(CLIPS), jnp.zeros((*CLIPS.shape[:-1], 1)).at[:, 0].set(1)
    joined = masks.network_input(x_t, CLIPS, mask)
    assert joined.shape[-1] == 7
    np.testing.assert_array_equal(joined[..., :3], x_t)
    np.testing.assert_array_equal(joined[:, 0, ..., 3:6], CLIPS[:, 0])
    assert not joined[:, 1:, ..., 3:].any()


def test_nothing_is_given_of_a_picture_where_a_clip_would_give_its_first_frame():
    key, shares = (
        jax.random.key(0),
        dict(text=0.2, image=0.3, inpaint=0.0, outpaint=0.0, cinemagraph=0.5),
    )
    picture = jax.random.normal(key, (64, 1, 8, 8, 1))
    clips, given = masks.draw(key, picture, shares)
    np.testing.assert_array_equal(clips, picture)
    assert not given.any()
    painted = masks.draw(key, picture, dict(shares, image=0.0, inpaint=0.3))[1]
    some = painted.reshape(64, -1).max(axis=1)
    assert 0.1 < some.mean() < 0.6
