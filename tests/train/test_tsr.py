"""Temporal super-resolution learns to use its keyframes."""

import jax
import numpy as np
import pytest
import test_step
import tiny
from from_config import input_shape, make_mesh, make_sampler, make_train_step, make_validation_step

from stunet.diffusion import keyframes
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import to_float

pytestmark = pytest.mark.slow

CONFIG = tiny.config(
    # One level without text, in which only attention over time connects frames: compiles fast.
    model=dict(
        channel_multipliers=(1,),
        attention_levels=(False,),
        temporal_factors=(1,),
        patch_size=1,
        text_features=0,
    ),
    tsr=dict(stride=3, max_augmentation=0.2),
    diffusion=dict(prediction="x0", weighting="uniform"),
    train=dict(batch_size=16, steps=1000, learning_rate=1e-2),
    log=dict(validate_times=(0.9,)),
    sample=dict(steps=2, guidance_scale=1.0),
)


def batch(seed: int) -> dict[str, np.ndarray]:
    """Returns clips of a single colour each, which their keyframes determine."""
    values = test_step.batch(CONFIG, seed)
    values["video"][:] = values["video"][:, :1, :1, :1]
    return values


@pytest.fixture(scope="module")
def trained(quickly_compiled_convolutions):
    """Returns the state after 60 updates, and the loss of each update."""
    mesh, losses = make_mesh(CONFIG), []
    state = test_step.random_state(CONFIG, mesh)
    with meshes.use(mesh):
        step = jax.jit(make_train_step(CONFIG))
        for i in range(60):
            state, metrics = step(state, meshes.shard_batch(batch(i), mesh))
            losses.append(float(metrics["loss"]))
    return state, losses


def test_updates_lower_the_loss(trained):
    _, losses = trained
    assert input_shape(CONFIG, 8) == (8, 4, 8, 8, 4)
    # Under much noise, only the keyframes tell the colour.
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_samples_follow_the_keyframes_they_are_given(trained):
    state, _ = trained
    values = batch(100)
    values["video"][0], values["video"][1] = 20, 235
    given = keyframes.take(to_float(values["video"][:2]), 3)
    text = values["text"][:2], values["text_mask"][:2]
    *_, clips = make_sampler(CONFIG)(state.ema, *text, 0, given)
    between = np.asarray(clips)[:, 1:3].mean((1, 2, 3, 4))
    assert between[1] - between[0] > 0.8


def test_validation_sees_what_was_learnt_and_repeats(trained):
    state, _ = trained
    validate = jax.jit(make_validation_step(CONFIG))
    start = test_step.random_state(CONFIG, make_mesh(CONFIG))
    before, after, again = (
        validate(params, batch(101))["loss"] for params in (start.ema, state.ema, state.ema)
    )
    assert after == again
    assert after < 0.7 * before
