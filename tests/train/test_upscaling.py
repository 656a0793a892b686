"""Spatial super-resolution learns to use its low-resolution clip."""

import pathlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import test_step
import tiny
from from_config import (
    input_shape,
    make_mesh,
    make_preview,
    make_sampler,
    make_source,
    make_train_step,
    make_validation_step,
)

from stunet import configs
from stunet.diffusion import upscaling
from stunet.errors import UserError
from stunet.generate.text import text_to_video
from stunet.parallel import mesh as meshes
from stunet.train.measured import preview
from stunet.train.objectives.objective import to_float

FACTOR = 4
CONFIG = tiny.config(
    # One level without text, which compiles fast.
    model=dict(
        channel_multipliers=(1,),
        attention_levels=(False,),
        temporal_factors=(1,),
        temporal_attention_blocks=0,
        patch_size=1,
        text_features=0,
    ),
    upscale=dict(factor=FACTOR, max_augmentation=0.5),
    data=dict(frames=2),
    train=dict(batch_size=8, steps=1000, learning_rate=1e-2),
    log=dict(sample_every=1, validate_times=(0.5,)),
    sample=dict(steps=4, guidance_scale=1.0, num=2),
)

SAMPLE = make_sampler(CONFIG)  # compiled once


def batch(seed: int) -> dict[str, np.ndarray]:
    """Returns clips of random squares, each as large as a low-resolution pixel.

    So the low-resolution clip determines them.
    """
    values = test_step.batch(CONFIG, seed)
    corners = values["video"][:, :, ::FACTOR, ::FACTOR]
    values["video"] = np.repeat(np.repeat(corners, FACTOR, axis=2), FACTOR, axis=3)
    return values


@pytest.fixture(scope="module")
def trained(quickly_compiled_convolutions):
    """Returns the state after 30 updates, and the loss of each update."""
    mesh, losses = make_mesh(CONFIG), []
    state = test_step.random_state(CONFIG, mesh)
    with meshes.use(mesh):
        step = jax.jit(make_train_step(CONFIG))
        for i in range(30):
            state, metrics = step(state, meshes.shard_batch(batch(i), mesh))
            losses.append(float(metrics["loss"]))
    return state, losses


def test_updates_lower_the_loss(trained):
    _, losses = trained
    assert input_shape(CONFIG, 8) == (8, 2, 8, 8, 3)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_samples_follow_the_low_resolution_clip_they_are_given(trained):
    state, _ = trained
    values = batch(100)
    low = upscaling.shrink(to_float(values["video"][:2]), FACTOR)
    text = values["text"][:2], values["text_mask"][:2]
    *_, clips = SAMPLE(state.ema, *text, 0, low)
    small = upscaling.shrink(np.asarray(clips), FACTOR)
    error = np.square(small[:, None] - low).mean(axis=(2, 3, 4, 5))
    assert error[0, 0] < 0.6 * error[0, 1]
    assert error[1, 1] < 0.6 * error[1, 0]


def test_validation_sees_what_was_learnt_and_repeats(trained):
    state, _ = trained
    validate = jax.jit(make_validation_step(CONFIG))
    start = test_step.random_state(CONFIG, make_mesh(CONFIG))
    before, after, again = (
        validate(params, batch(101))["loss"] for params in (start.ema, state.ema, state.ema)
    )
    assert after == again
    assert after < before


def test_samples_while_training_are_held_out_clips_enlarged(trained, tmp_path, monkeypatch):
    state, _ = trained
    pictures, given = [], []
    monkeypatch.setattr(
        preview, "make_sampler", lambda *_: lambda *a: given.append(a[-1]) or SAMPLE(*a)
    )
    make_preview(CONFIG, tmp_path, make_mesh(CONFIG))(
        state.ema, 30, SimpleNamespace(picture=lambda *p: pictures.append(p))
    )
    assert [name for _, name, _ in pictures] == ["samples/clips", "samples/xt"]
    assert all(pathlib.Path(file).stat().st_size for *_, file in pictures)
    source = make_source(CONFIG, "val")
    held_out = np.stack([source[i]["video"] for i in range(2)]) / 127.5 - 1
    blocks = held_out.reshape(2, 2, 2, FACTOR, 2, FACTOR, 1).mean((3, 5))
    np.testing.assert_allclose(given[0], blocks, atol=1e-5)


def test_sampling_from_text_alone_is_refused(tmp_path):
    configs.write(CONFIG, tmp_path / "config.json")
    with pytest.raises(UserError, match=r"super-resolution network \(upscale.factor is 4\), which"):
        text_to_video(tmp_path, ["a 3 moving left"])
