"""Runs whose network is a formula, so that there is nothing to train and little to compile."""

import jax
import numpy as np
import test_step
import tiny
from from_config import make_mesh
from PIL import Image

from stunet import configs
from stunet.generate.text import Run
from stunet.nn.stunet import STUNet
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints

MODEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
SHARES = dict(text=0.2, image=0.4, inpaint=0.2, cinemagraph=0.2)


def config(**groups):
    """Returns the config of a network that predicts x0, without guidance and thresholding."""
    groups = {
        "model": MODEL,
        "diffusion": dict(prediction="x0"),
        "sample": dict(threshold="none", guidance_scale=1.0),
    } | groups
    return tiny.config(**groups)


def replace_network(monkeypatch, network) -> None:
    """Makes new samplers call `network(inputs, time)` in place of the real network."""
    monkeypatch.setattr(
        STUNet, "apply", lambda self, params, inputs, time, *text: network(inputs, time)
    )


def save(config, workdir, step=0) -> None:
    """Writes a run with random weights to `workdir`."""
    configs.write(config, workdir / "config.json")
    state = test_step.random_state(config, make_mesh(config))
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state.replace(step=state.step + step), {"global_next_index": 0})
        checkpoints.wait()


def run(config) -> Run:
    return Run(make_parts(config), {}, make_mesh(config, jax.devices()[:1]))


def write_gif(path, frames: np.ndarray, fps: int = 10) -> None:
    """Writes grey frames [t, h, w] without loss; `fps` divides 100, as GIFs need."""
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // fps)
