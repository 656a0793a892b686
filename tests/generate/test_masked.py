"""The given part of a clip is kept exactly, the rest is made, and the network sees the mask."""

import numpy as np
import pytest
import stand_in

from stunet import configs
from stunet.errors import UserError
from stunet.generate import masked

CONFIG = stand_in.config(masks=stand_in.SHARES)
RNG = np.random.default_rng(0)
CLIPS = RNG.uniform(-1, 1, (2, 4, 8, 8, 1)).astype(np.float32)
IMAGES = CLIPS[:, 0]
BOX = np.zeros((8, 8), bool)
BOX[2:5, 1:7] = True
PROMPTS = ["a", "b"]

# For each task, (run, options) -> clips, the mask of the given part, and the clips' content there.
TASKS = {
    "image": (
        lambda run, **options: masked.image_to_video(run, PROMPTS, IMAGES, **options),
        np.broadcast_to((np.arange(4) == 0)[:, None, None], (4, 8, 8)),
        np.repeat(IMAGES[:, None], 4, axis=1),
    ),
    "cinemagraph": (
        lambda run, **options: masked.cinemagraph(run, PROMPTS, IMAGES, BOX, **options),
        (np.arange(4) == 0)[:, None, None] | ~BOX,
        np.repeat(IMAGES[:, None], 4, axis=1),
    ),
    "inpaint": (
        lambda run, **options: masked.inpaint(run, PROMPTS, CLIPS, BOX, **options),
        np.broadcast_to(~BOX, (4, 8, 8)),
        CLIPS,
    ),
}


@pytest.fixture
def run(monkeypatch):
    def make(network):
        stand_in.replace_network(monkeypatch, lambda inputs, time: network(inputs))
        return stand_in.run(CONFIG)

    return make


@pytest.mark.parametrize("name", TASKS)
def test_what_is_given_comes_back_bit_by_bit_and_the_rest_is_made(run, name):
    task, given, known = TASKS[name]
    made = task(run(lambda inputs: 0.1 * inputs[..., :1]))
    np.testing.assert_array_equal(made[:, given], known[:, given])
    assert (made[:, ~given] != known[:, ~given]).all()
    # The generated part differs between clips and between frames.
    assert (made[0][~given] != made[1][~given]).all()


@pytest.mark.parametrize("name", TASKS)
def test_the_network_sees_what_is_given_and_where_and_nothing_else(run, name):
    task, given, known = TASKS[name]
    seen = task(run(lambda inputs: inputs[..., 1:2]), put_back=False)
    np.testing.assert_allclose(seen, known * given[..., None], atol=1e-6)
    seen = task(run(lambda inputs: inputs[..., 2:3]), put_back=False)
    np.testing.assert_array_equal(seen, np.broadcast_to(given[..., None], seen.shape))


def test_a_cinemagraph_moves_inside_its_region_alone(run):
    clips = TASKS["cinemagraph"][0](run(lambda inputs: 0.1 * inputs[..., :1]))
    change = np.abs(np.diff(clips, axis=1))[..., 0]
    assert not change[:, :, ~BOX].any()
    assert (change[:, :, BOX] > 0).all()


def test_a_hole_may_move(run):
    hole = RNG.random((4, 8, 8)) < 0.5
    made = masked.inpaint(run(lambda inputs: 0 * inputs[..., :1]), PROMPTS, CLIPS, hole)
    np.testing.assert_array_equal(made, np.where(hole[..., None], 0, CLIPS))


def test_one_picture_makes_different_clips_with_the_seed_s_noise_alone(run):
    def clips(prompts, **options):
        network = run(lambda inputs: 0.1 * inputs[..., :1])
        return masked.image_to_video(network, prompts, IMAGES[:1], **options)

    both = clips(PROMPTS)
    assert (both[0, 1:] != both[1, 1:]).all()
    np.testing.assert_allclose(clips(PROMPTS[:1])[0], both[0], atol=1e-6)
    assert (clips(PROMPTS, seed=1)[:, 1:] != both[:, 1:]).all()


def test_clips_of_another_size(run):
    with pytest.raises(UserError, match=r"clips are 4x8x6x1 .* the run makes 4x8x8x1"):
        masked.inpaint(run(lambda inputs: inputs[..., :1]), PROMPTS, CLIPS[:, :, :, :6], BOX)


@pytest.mark.parametrize("groups", [{}, dict(upscale=dict(factor=2))])
def test_a_run_without_masks_is_told_what_to_train_with(tmp_path, groups):
    configs.write(stand_in.config(**groups), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"masks.image, masks.inpaint or masks.cinemagraph"):
        masked.load_masked(tmp_path)
