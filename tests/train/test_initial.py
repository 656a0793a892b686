"""A run that begins with another's weights: the widened network is the old one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny

from stunet import configs
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train import initial
from stunet.train.checkpoints import Checkpoints
from stunet.train.conditioning import conditioning
from stunet.train.state import make_network

# One level of frames by themselves, which compiles fast; patches of 2 x 2 pixels.
MODEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
BASE = tiny.config(model=MODEL)
MASKS = dict(text=0.5, image=0.5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a text-to-video run, whose averaged weights are not its weights."""
    workdir = tmp_path_factory.mktemp("base")
    configs.write(BASE, workdir / "config.json")
    state = test_step.random_state(BASE, meshes.make_mesh(BASE.mesh))
    state = dataclasses.replace(state, ema=jax.tree.map(lambda p: 2.0 * p, state.params))
    with Checkpoints(workdir, keep=1) as checkpoints:
        checkpoints.save(state, {"global_next_index": 0})
        checkpoints.wait()
    return workdir, state


def begun(workdir, **groups):
    config = tiny.config(**{"model": MODEL, "train": dict(init_from=str(workdir))} | groups)
    mesh = meshes.make_mesh(config.mesh)
    with meshes.use(mesh):
        initial.check(config, mesh)
        return config, initial.first_state(config, mesh)


def output(config, params, inputs):
    text = jnp.ones((2, 3, config.text.dim)), jnp.ones((2, 3), bool)
    network, times = make_network(config), jnp.array([0.2, 0.7])
    apply = jax.jit(lambda params: network.apply({"params": params}, inputs, times, *text))
    return apply(params)


def test_at_first_it_makes_the_same_of_the_noisy_clip_whatever_else_it_is_given(workdir):
    directory, state = workdir
    config, first = begun(directory, masks=MASKS)
    noisy, clips = jax.random.normal(jax.random.key(0), (2, 2, 4, 8, 8, 1))
    mask = (clips[..., :1] > 0).astype(jnp.float32)
    expected = output(BASE, state.ema, noisy)
    assert np.abs(expected).max() > 0.05
    network_input = conditioning(config).network_input
    for given in ((clips, mask), (0 * clips, 0 * mask)):
        found = output(config, first.params, network_input(noisy, *given))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, first.params, first.ema)
    assert first.step == 0
    assert first.params["conv_in"]["kernel"].shape[-2] == 4 * 3


def test_a_patch_keeps_its_pixels_apart():
    kernel = jnp.arange(1.0, 9.0).reshape(1, 1, 4, 2)  # 4 pixels of 1 channel, 2 features
    wide = initial.widen(kernel, 4, 3).reshape(4, 3, 2)
    np.testing.assert_array_equal(wide[:, 0], kernel[0, 0])
    assert not wide[:, 1:].any()


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (dict(train=dict(init_from="nowhere")), "train.init_from: nowhere holds no training run"),
        (dict(model=MODEL | dict(channels=16)), "model.channels is 8 there and 16 here"),
        (dict(diffusion=dict(prediction="x0")), "diffusion.prediction is 'v' there and 'x0' here"),
        (dict(model=MODEL | dict(time_scale=999.0)), "model.time_scale is 1000.0 there and 999.0"),
    ],
)
def test_weights_that_do_not_fit(workdir, groups, sentence):
    with pytest.raises(UserError, match=sentence):
        begun(workdir[0], **groups)


def test_a_network_that_is_given_something_else(workdir, tmp_path):
    configs.write(tiny.config(model=MODEL, upscale=dict(factor=2)), tmp_path / "config.json")
    (tmp_path / "checkpoints").symlink_to(workdir[0] / "checkpoints")
    with pytest.raises(UserError, match=r"conditioned otherwise \(upscale, and this one masks\)"):
        begun(tmp_path, masks=MASKS)


def test_nothing_is_written_where_the_weights_do_not_fit(tmp_path):
    from stunet.train.loop import train

    config = tiny.config(model=MODEL, train=dict(init_from=str(tmp_path)))
    with pytest.raises(UserError, match="holds no training run"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
